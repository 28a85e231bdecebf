#include "data/tokenizer.h"

#include <exception>
#include <filesystem>

#include "core/base/error.h"
#include "data/bpe_tokenizer.h"
#include "data/byte_tokenizer.h"

namespace adagate {

std::vector<std::vector<int32_t>> encode_batch(const Tokenizer& tokenizer,
                                               std::span<const std::string_view> texts,
                                               const EncodeOptions& options) {
  std::vector<std::vector<int32_t>> ids(texts.size());
  std::exception_ptr failure;  // an exception must not leave an OpenMP region
#pragma omp parallel for schedule(dynamic, 1) if (texts.size() > 1)
  for (size_t i = 0; i < texts.size(); ++i) {
    try {
      ids[i] = tokenizer.encode(texts[i], options);
    } catch (...) {
#pragma omp critical(adagate_encode_failure)
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
  return ids;
}

std::vector<int32_t> ids_without_token(const Tokenizer& tokenizer, int64_t vocabulary) {
  std::vector<int32_t> ids;
  for (int64_t id = 0; id < vocabulary; ++id)
    if (!tokenizer.has_token(static_cast<int32_t>(id))) ids.push_back(static_cast<int32_t>(id));
  return ids;
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::string& spec) {
  if (spec == "byte") return std::make_unique<ByteTokenizer>();
  check(!spec.empty(), "no tokenizer is named: give 'byte' or the path of a GPT-2 style BPE");
  check(std::filesystem::exists(spec),
        "tokenizer '{}': no such file or folder (give 'byte', a tokenizer.json, or a folder with "
        "tokenizer.json, encoder.json + vocab.bpe, or vocab.json + merges.txt)",
        spec);
  return std::make_unique<BpeTokenizer>(load_bpe(spec));
}

}  // namespace adagate
