// Backends as libraries that are opened at run time.
#include "core/device/backend.h"
#include "core/ops/all_kernels.h"
#include "core/tensor/tensor.h"
#include "tests/support/catch.h"
#include "tests/support/in_child.h"

using namespace adagate;
using namespace adagate::test;
using Catch::Matchers::Contains;

TEST_CASE("A backend's library is opened, and its kernels run") {
  // In a process of its own: a backend stays for good.
  auto ended = in_child([] {
    open_backend(DeviceKind::cuda, ADAGATE_PLUGIN_BACKEND);
    Device second{DeviceKind::cuda, 1};
    Tensor x = Tensor::full({5}, DType::f32, 2.5, second);
    check(x.to_floats() == std::vector<float>(5, 2.5f), "other values");
    open_backend(DeviceKind::cuda, ADAGATE_PLUGIN_BACKEND);  // the same again
    x.to(DType::f64);
  });
  CHECK(ended.status == 1);
  CHECK_THAT(ended.output, Contains("the backend for cuda has no kernel convert"));
}

TEST_CASE("What is no backend's library is told") {
  CHECK_THROWS_WITH(open_backend(DeviceKind::cuda, "/nowhere/libadagate_cuda.so"),
                    Contains("cannot open the backend for cuda") && Contains("/nowhere"));
  CHECK_THROWS_WITH(open_backend(DeviceKind::cuda, "libm.so.6"),
                    "libm.so.6 is not the backend for cuda: it has no function adagate_backend");
  CHECK_THROWS_WITH(Tensor::zeros({1}, DType::f32, {DeviceKind::cuda, 0}),
                    "there is no backend for devices of kind cuda");
}

TEST_CASE("Kernels have names of their own") {
  std::vector<std::string_view> names;
  AllKernels::for_each([&]<class Args>() { names.push_back(Args::kKernel); });
  std::sort(names.begin(), names.end());
  CHECK(std::adjacent_find(names.begin(), names.end()) == names.end());
  CHECK(names.size() == AllKernels::kSize);
}
