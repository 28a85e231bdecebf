#include "data/token_file.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <unistd.h>
#include <xxhash.h>

#include "core/base/error.h"
#include "core/base/heartbeat.h"
#include "core/io/atomic_file.h"
#include "core/io/file_kind.h"
#include "core/io/safetensors.h"

namespace adagate {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little endian");

constexpr char kMagic[8] = "adagtok";
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderSize = sizeof(TokenFileHeader);
constexpr size_t kBuffer = 1 << 20;
constexpr const char* kRemedy = "make it again with 'adagate tokenize'";

uint64_t header_hash(const TokenFileHeader& header) {
  return XXH3_64bits(&header, offsetof(TokenFileHeader, header_hash));
}

uint64_t round_up_8(uint64_t size) {
  return (size + 7) / 8 * 8;
}

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

TokenView::TokenView(std::span<const std::byte> bytes, std::string name)
    : bytes_(bytes), name_(std::move(name)) {
  check(!bytes.empty(), "token file {}: is empty; {}", name_, kRemedy);
  check_no_lfs_pointer({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                       "token file " + name_);
  size_t magic_size = std::min(bytes.size(), sizeof kMagic);
  check(std::memcmp(bytes.data(), kMagic, magic_size) == 0,
        "token file {}: is no token file; tokenize text with 'adagate tokenize' first", name_);
  check(bytes.size() >= kHeaderSize, "token file {}: is truncated inside its header ({} bytes); {}",
        name_, bytes.size(), kRemedy);
  std::memcpy(&header_, bytes.data(), kHeaderSize);
  check(header_.version == kVersion,
        "token file {}: has format version {}, this program reads {}; {}", name_, header_.version,
        kVersion, kRemedy);
  check(header_.header_hash == header_hash(header_), "token file {}: the header is damaged; {}",
        name_, kRemedy);
  bool sane = header_.header_size == kHeaderSize && header_.reserved == 0 &&
              (header_.token_width == 2 || header_.token_width == 4) && header_.vocabulary > 0 &&
              header_.vocabulary <= 1u << 31 && header_.tokenizer_name[55] == 0;
  check(sane, "token file {}: the header contradicts itself; {}", name_, kRemedy);
  check(header_.tokens > 0, "token file {}: holds no tokens; {}", name_, kRemedy);
  // Bounded one by one, so that the sum below cannot overflow.
  uint64_t size = bytes.size();
  bool fits = header_.tokens <= size / header_.token_width && header_.documents <= size / 8;
  uint64_t documents_at = fits ? kHeaderSize + round_up_8(header_.tokens * header_.token_width) : 0;
  check(
      fits && documents_at + 8 * header_.documents == size,
      "token file {}: is truncated or overlong: {} bytes do not hold {} tokens of {} bytes and {} "
      "documents; {}",
      name_, size, header_.tokens, header_.token_width, header_.documents, kRemedy);
  documents_at_ = documents_at;
  for (int64_t d = 0; d < documents(); ++d)
    check(document_start(d) >= 0 && document_start(d) <= document_start(d + 1),
          "token file {}: document {} starts at token {}, the next at {}; {}", name_, d,
          document_start(d), document_start(d + 1), kRemedy);
}

int64_t TokenView::document_start(int64_t document) const {
  if (document == documents()) return size();
  check(document >= 0 && document < documents(), "token file {}: there is no document {} of {}",
        name_, document, documents());
  return load<int64_t>(bytes_.data() + documents_at_ + 8 * document);
}

void TokenView::read(int64_t first, std::span<int32_t> to) const {
  auto count = static_cast<int64_t>(to.size());
  check(first >= 0 && count <= size() && first <= size() - count,
        "token file {}: tokens {} to {} asked for, there are {}", name_, first, first + count,
        size());
  const std::byte* from = bytes_.data() + kHeaderSize + first * header_.token_width;
  if (header_.token_width == 2) {
    for (int64_t i = 0; i < count; ++i) to[i] = load<uint16_t>(from + 2 * i);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = load<int32_t>(from + 4 * i);
  }
}

bool TokenView::matches_checksums() const {
  const auto* payload = reinterpret_cast<const char*>(bytes_.data()) + kHeaderSize;
  return std::memcmp(bytes_.data(), &header_, kHeaderSize) == 0 &&
         checksum_bytes({payload, bytes_.size() - kHeaderSize}) == header_.payload_hash;
}

void TokenView::verify() const {
  check(matches_checksums(), "token file {}: the tokens are damaged (checksum); {}", name_,
        kRemedy);
  std::vector<int32_t> block(static_cast<size_t>(std::min<int64_t>(1 << 16, size())));
  for (int64_t first = 0; first < size(); first += static_cast<int64_t>(block.size())) {
    block.resize(std::min<int64_t>(block.size(), size() - first));
    read(first, block);
    beat();
    for (size_t i = 0; i < block.size(); ++i)
      check(block[i] >= 0 && block[i] < vocabulary(),
            "token file {}: token {} is {}, outside its vocabulary of {}; {}", name_, first + i,
            block[i], vocabulary(), kRemedy);
  }
}

void TokenView::check_tokenizer(const Tokenizer& tokenizer) const {
  check(
      tokenizer_hash() == tokenizer.hash(),
      "token file {}: was written with another tokenizer ('{}', vocabulary {}, hash {:016x}) than "
      "the one configured ('{}', vocabulary {}, hash {:016x}); tokenize again or name the other",
      name_, tokenizer_name(), vocabulary(), tokenizer_hash(), tokenizer.name(),
      tokenizer.vocabulary_size(), tokenizer.hash());
}

TokenFile::TokenFile(const std::string& path) {
  if (access(path.c_str(), R_OK) != 0) {
    fail("token file {}: cannot be opened ({}); 'adagate tokenize' makes it", path,
         std::strerror(errno));
  }
  mapping_ = named("token file", [&] { return std::make_unique<const MappedFile>(path); });
  view_ = TokenView(std::as_bytes(mapping_->bytes()), path);
  mapping_->check_intact();
}

void TokenFile::check_same() const {
  mapping_->check_intact();
  if (mapping_->unchanged()) return;
  // Touched or written once more, it may still hold the same.
  bool same = view_.matches_checksums();
  mapping_->check_intact();
  check(same,
        "token file {}: was changed while it was in use; start again once it is whole, and replace "
        "files in use by renaming (mv), not in place (cp, >)",
        view_.name());
  mapping_->accept_change();
}

bool is_token_file(const std::string& path) {
  std::error_code error;
  char magic[sizeof kMagic] = {};
  return std::filesystem::is_regular_file(path, error) &&
         std::ifstream(path, std::ios::binary).read(magic, sizeof magic) &&
         std::memcmp(magic, kMagic, sizeof magic) == 0;
}

TokenFile::~TokenFile() = default;
TokenFile::TokenFile(TokenFile&&) noexcept = default;
TokenFile& TokenFile::operator=(TokenFile&&) noexcept = default;

struct TokenFileWriter::Hash {
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state{XXH3_createState(),
                                                                 XXH3_freeState};
  Hash() { XXH3_64bits_reset(state.get()); }
};

namespace {

// The file that `path` means, a link's target; what is no file must not be replaced by one.
std::string writable_path(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::file_status status = fs::status(path, error);
  check(!fs::is_directory(status), "token file {}: is a directory; name a file in it", path);
  check(!fs::exists(status) || fs::is_regular_file(status),
        "token file {}: is a pipe or a device; name a file", path);
  return fs::is_symlink(path, error) ? fs::weakly_canonical(path, error).string() : path;
}

}  // namespace

TokenFileWriter::TokenFileWriter(const std::string& path, const Tokenizer& tokenizer, bool replace)
    : replace_(replace), path_(writable_path(path)), hash_(std::make_unique<Hash>()) {
  std::memcpy(header_.magic, kMagic, sizeof kMagic);
  header_.version = kVersion;
  header_.header_size = kHeaderSize;
  header_.vocabulary = static_cast<uint64_t>(tokenizer.vocabulary_size());
  header_.token_width = header_.vocabulary <= 1 << 16 ? 2 : 4;
  header_.tokenizer_hash = tokenizer.hash();
  tokenizer.name().copy(header_.tokenizer_name, sizeof header_.tokenizer_name - 1);
  file_ = open_temporary(path_, temporary_, 0666);
  check(file_ >= 0, "token file {}: cannot be written ({}); name a writable folder", path,
        std::strerror(errno));
  written_ = kHeaderSize;  // the header comes last
  buffer_.reserve(kBuffer + 8);
}

TokenFileWriter::~TokenFileWriter() {
  if (file_ < 0) return;
  close(file_);
  unlink(temporary_.c_str());
}

void TokenFileWriter::begin_document() {
  document_starts_.push_back(header_.tokens);
}

void TokenFileWriter::append(std::span<const int32_t> ids) {
  for (int32_t id : ids) {
    check(id >= 0 && static_cast<uint64_t>(id) < header_.vocabulary,
          "token file {}: token {} is outside the vocabulary of {}", path_, id, header_.vocabulary);
    put(&id, header_.token_width);  // the low bytes, little endian
  }
  header_.tokens += ids.size();
}

void TokenFileWriter::put(const void* data, size_t size) {
  const auto* bytes = static_cast<const std::byte*>(data);
  buffer_.insert(buffer_.end(), bytes, bytes + size);
  if (buffer_.size() >= kBuffer) flush();
}

void TokenFileWriter::flush() {
  XXH3_64bits_update(hash_->state.get(), buffer_.data(), buffer_.size());
  write_fully(buffer_.data(), buffer_.size(), written_);
  written_ += static_cast<int64_t>(buffer_.size());
  buffer_.clear();
}

void TokenFileWriter::write_fully(const void* data, size_t size, int64_t at) {
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    ssize_t done = pwrite(file_, from, size, at);
    if (done < 0 && errno == EINTR) continue;
    int error = done < 0 ? errno : ENOSPC;  // a write of nothing sets no errno
    check(done > 0, "token file {}: writing failed ({})", path_, std::strerror(error));
    from += done;
    at += done;
    size -= static_cast<size_t>(done);
  }
}

// Gives the whole file its name; false with errno set when that fails.
bool TokenFileWriter::publish() {
  if (replace_) return std::rename(temporary_.c_str(), path_.c_str()) == 0;
  bool linked = link(temporary_.c_str(), path_.c_str()) == 0;
  int error = linked ? 0 : errno;
  bool no_links = error == EPERM || error == EOPNOTSUPP;  // of the file system
  if (no_links && access(path_.c_str(), F_OK) != 0)
    return std::rename(temporary_.c_str(), path_.c_str()) == 0;
  if (no_links) error = EEXIST;
  unlink(temporary_.c_str());
  errno = error;
  if (linked || error != EEXIST) return linked;
  bool same = is_token_file(path_);
  if (same) {
    TokenFile other(path_);
    same = other.view().payload_hash() == header_.payload_hash &&
           other.view().tokenizer_hash() == header_.tokenizer_hash;
  }
  check(same,
        "token file {}: is there already, with other tokens: another rank's, or of an earlier run; "
        "give each rank an output of its own, or remove it first",
        path_);
  return true;
}

void TokenFileWriter::finish() {
  check(file_ >= 0, "token file {}: finished twice", path_);
  check(header_.tokens > 0, "token file {}: there are no tokens to write; the input is empty",
        path_);
  header_.documents = document_starts_.size();
  uint64_t zeros = 0, size = header_.tokens * header_.token_width;
  put(&zeros, round_up_8(size) - size);
  for (uint64_t start : document_starts_) put(&start, sizeof start);
  flush();
  // The header last: until then the file is none, whatever happens.
  header_.payload_hash = XXH3_64bits_digest(hash_->state.get());
  header_.header_hash = header_hash(header_);
  write_fully(&header_, kHeaderSize, 0);
  // The first that fails says why.
  int error = fsync(file_) == 0 ? 0 : errno;
  if (close(file_) != 0 && error == 0) error = errno;
  file_ = -1;
  if (error == 0 && !publish()) error = errno;
  if (error != 0) {
    unlink(temporary_.c_str());
    fail("token file {}: writing failed ({})", path_, std::strerror(error));
  }
  auto parent = std::filesystem::path(path_).parent_path();
  int folder = open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    fsync(folder);  // best effort: some file systems refuse it for folders
    close(folder);
  }
}

}  // namespace adagate
