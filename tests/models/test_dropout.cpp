// Dropout has its places, each with its own share and its own draws, anew at every step.
#include <numeric>
#include <string>

#include "core/nn/parameter_store.h"
#include "models/decoder.h"
#include "tests/support/catch.h"
#include "tests/support/draws.h"
#include "tests/support/one_thread.h"

namespace adagate::test {
namespace {

constexpr int64_t kLayers = 2, kWidth = 16, kRows = 150;

// Where elements are dropped: after the embedding, or in a block the attention's probabilities and
// what each of its branches adds to the residual stream.
struct Place {
  enum class Kind : uint8_t { embedding, probabilities, attention, feed_forward } kind;
  int64_t block = 0;

  std::string name() const {
    constexpr const char* kNames[] = {"embedding", "probabilities", "attention", "feed_forward"};
    return fmt::format("{} {}", kNames[static_cast<size_t>(kind)], block);
  }
};

std::vector<Place> places() {
  std::vector<Place> all = {{Place::Kind::embedding}};
  for (int64_t block = 0; block < kLayers; ++block)
    for (auto kind :
         {Place::Kind::probabilities, Place::Kind::attention, Place::Kind::feed_forward})
      all.push_back({kind, block});
  return all;
}

// Address of one run's draws.
struct Address {
  int64_t step = 0;
  uint64_t seed = 3;
  int64_t first_row = 0;
  bool training = true;
};

// A decoder in which only `place` adds to the residual stream: a one for each element. Samples of
// one token make each head one draw, as each head is one element.
class PlaceDecoder {
 public:
  PlaceDecoder(Place place, double dropout, double attention_dropout)
      : decoder_(config(dropout, attention_dropout), {}, make_self_mesh()),
        store_(decoder_, {.master = DType::f64, .compute = DType::f64, .allocate_grad = {}}) {
    for (Parameter* p : store_.parameters()) p->master().fill(p->name().ends_with("gamma") ? 1 : 0);
    std::string block = fmt::format("blocks.{}.", place.block);
    auto set = [&](const std::string& name) { return store_.find(name)->master(); };
    switch (place.kind) {
      case Place::Kind::embedding:
        set("embedding.tokens").fill(1);
        break;
      case Place::Kind::probabilities: {
        set(block + "attention.qkv.bias").slice(2 * kWidth, 3 * kWidth).fill(1);  // the values
        auto* weight = set(block + "attention.output.weight").data<double>();
        for (int64_t i = 0; i < kWidth; ++i) weight[i * kWidth + i] = 1;
        break;
      }
      case Place::Kind::attention:
        set(block + "attention.output.bias").fill(1);
        break;
      case Place::Kind::feed_forward:
        set(block + "feed_forward.down.bias").fill(1);
        break;
    }
  }

  // Of each element of each row.
  std::vector<bool> dropped(const Address& at = {}) {
    StepContext context{.training = at.training, .seed = at.seed, .step = at.step};
    TokenRows rows = padded_rows(kRows, 1);
    std::vector<int64_t> places(kRows);
    std::iota(places.begin(), places.end(), at.first_row);
    set_addresses(rows, places);
    // The last norm leaves zeros alone.
    std::vector<double> hidden =
        decoder_.forward(Tensor::zeros({kRows}, DType::i32), context, rows).to_doubles();
    std::vector<bool> result;
    for (double value : hidden) result.push_back(value == 0);
    return result;
  }

 private:
  static ModelConfig config(double dropout, double attention_dropout) {
    ModelConfig m;
    m.layers = kLayers;
    m.width = m.heads = kWidth;
    m.context = 1;
    m.vocabulary = 5;
    m.norm = "rms_norm";
    m.dropout = dropout;
    m.attention_dropout = attention_dropout;
    return m;
  }

  OneThread one_thread_;  // the work is too small to share
  Decoder decoder_;
  ParameterStore store_;
};

// Every place drops with probability 1/2, and the probabilities are dropped by themselves.
PlaceDecoder even_decoder(Place place) {
  bool alone = place.kind == Place::Kind::probabilities;
  return {place, alone ? 0.0 : 0.5, alone ? 0.5 : 0.0};
}

}  // namespace

TEST_CASE("dropout: every place drops its share in training, and nothing otherwise", "[models]") {
  struct Shares {
    double dropout, attention;
  };
  for (Shares shares : {Shares{0.2, 0.5}, Shares{0.3, 0}, Shares{0, 0.3}})
    for (Place place : places()) {
      INFO(place.name() << ", dropout " << shares.dropout << ", of attention " << shares.attention);
      PlaceDecoder decoder(place, shares.dropout, shares.attention);
      // What attention mixes is then dropped as any branch's result.
      double kept = 1 - shares.dropout;
      if (place.kind == Place::Kind::probabilities) kept *= 1 - shares.attention;
      std::vector<bool> dropped = decoder.dropped();
      CHECK(share_of(dropped) == Approx(1 - kept).margin(share_margin(kept, dropped.size())));
      CHECK(share_of(decoder.dropped({.training = false})) == 0);
    }
}

TEST_CASE("dropout: every place, step and seed draws anew", "[models]") {
  struct Draw {
    std::string name;
    std::vector<bool> dropped;
  };
  std::vector<Draw> draws;
  for (Place place : places()) {
    PlaceDecoder decoder = even_decoder(place);
    CHECK(decoder.dropped() == decoder.dropped());
    for (Address at : {Address{}, Address{.step = 1}, Address{.seed = 4}})
      draws.push_back({fmt::format("{}, step {}, seed {}", place.name(), at.step, at.seed),
                       decoder.dropped(at)});
  }
  for (size_t i = 0; i < draws.size(); ++i)
    for (size_t j = 0; j < i; ++j) {
      INFO(draws[i].name << " and " << draws[j].name);
      CHECK(independent(draws[i].dropped, draws[j].dropped));
    }
}

TEST_CASE("dropout: a token's draws are those of its address, whatever its place", "[models]") {
  constexpr int64_t kLater = 50;
  for (Place place : places()) {
    INFO(place.name());
    PlaceDecoder decoder = even_decoder(place);
    std::vector<bool> first = decoder.dropped(), later = decoder.dropped({.first_row = kLater});
    auto shifted = first.begin() + kLater * kWidth;
    CHECK(std::equal(shifted, first.end(), later.begin()));
    CHECK(independent(first, later));
  }
}

}  // namespace adagate::test
