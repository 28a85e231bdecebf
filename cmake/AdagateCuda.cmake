# The CUDA backend: libadagate_cuda.so, which the program opens at run time. It links nothing of
# adagate's own libraries, and the program nothing of CUDA's, so that the same program starts on
# machines without NVIDIA's libraries.
function(adagate_cuda_sources result)
  file(GLOB sources CONFIGURE_DEPENDS
       ${PROJECT_SOURCE_DIR}/core/device/cuda/*.cpp
       ${PROJECT_SOURCE_DIR}/core/ops/cuda/*.cpp ${PROJECT_SOURCE_DIR}/core/ops/cuda/*.cu)
  set(${result} ${sources} PARENT_SCOPE)
endfunction()

# What every form of the backend is compiled and linked with, the tests' emulated one, too.
function(adagate_cuda_settings target)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_features(${target} PRIVATE cxx_std_20)
  target_link_libraries(${target} PRIVATE fmt::fmt Threads::Threads)
  # A library that needs something of adagate's own would find it in one program and not in another.
  target_link_options(${target} PRIVATE LINKER:-z,defs)
  set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
endfunction()

if(ADAGATE_HAVE_CUDA)
  adagate_cuda_sources(cuda_sources)
  add_library(adagate_cuda MODULE ${cuda_sources})
  adagate_cuda_settings(adagate_cuda)
  target_compile_options(adagate_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>
    $<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings>
    $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wno-unknown-pragmas>
    "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Xfatbin -compress-all -lineinfo>"
    $<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra>)
  target_link_libraries(adagate_cuda PRIVATE CUDA::cudart_static CUDA::cublasLt)
  set_target_properties(adagate_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static)
  install(TARGETS adagate_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
