// Encodes strings for tests/reference/tokenizer_parity.py.
//   tokenize_lines TOKENIZER [--special] [--time]
// stdin: strings, each as its length (u32, little endian) and its bytes; stdout: for each the
// number of ids (u32) and the ids (i32). Every string is decoded again and must come back.
// --time encodes everything a second time on one thread and writes MB/s to stderr.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "data/tokenizer.h"

namespace {

using namespace adagate;

std::string read_all(std::FILE* in) {
  std::string data;
  char buffer[1 << 16];
  while (size_t got = std::fread(buffer, 1, sizeof buffer, in)) data.append(buffer, got);
  return data;
}

std::vector<std::string_view> split(std::string_view data) {
  std::vector<std::string_view> texts;
  while (!data.empty()) {
    uint32_t size = 0;
    check(data.size() >= sizeof size, "input ends inside a length");
    std::memcpy(&size, data.data(), sizeof size);
    data.remove_prefix(sizeof size);
    check(data.size() >= size, "input ends inside a string of {} bytes", size);
    texts.push_back(data.substr(0, size));
    data.remove_prefix(size);
  }
  return texts;
}

void report_speed(const Tokenizer& tokenizer, const std::vector<std::string_view>& texts) {
  auto start = std::chrono::steady_clock::now();
  size_t bytes = 0, tokens = 0;
  for (auto text : texts) {
    bytes += text.size();
    tokens += tokenizer.encode(text).size();
  }
  std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  fmt::print(stderr, "{:.1f} MB/s on one thread ({} bytes, {} tokens)\n",
             1e-6 * static_cast<double>(bytes) / seconds.count(), bytes, tokens);
}

void run(int argc, char** argv) {
  check(argc >= 2, "usage: tokenize_lines TOKENIZER [--special] [--time]");
  bool special = false, timed = false;
  for (int i = 2; i < argc; ++i) {
    special |= std::string_view(argv[i]) == "--special";
    timed |= std::string_view(argv[i]) == "--time";
  }
  auto tokenizer = load_tokenizer(argv[1]);
  std::string data = read_all(stdin);
  auto texts = split(data);
  auto ids = encode_batch(*tokenizer, texts, {special});
  for (size_t i = 0; i < texts.size(); ++i) {
    check(tokenizer->decode(ids[i]) == texts[i], "string {} does not come back from its ids", i);
    auto count = static_cast<uint32_t>(ids[i].size());
    std::fwrite(&count, sizeof count, 1, stdout);
    std::fwrite(ids[i].data(), sizeof(int32_t), count, stdout);
  }
  if (timed) report_speed(*tokenizer, texts);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "tokenize_lines: {}\n", e.what());
    return 1;
  }
}
