// A decoder whose last token of a sample chooses one of several classes.
#pragma once

#include "layers/linear.h"
#include "models/decoder.h"

namespace adagate {

// Parameters: body.*, those of the decoder, and head.weight, head.bias.
class SequenceClassifier final : public Model {
 public:
  // Throws Error on impossible sizes, and on a decoder with a head of its own.
  SequenceClassifier(const ModelConfig& config, const MoeConfig& moe, const Mesh& mesh,
                     int64_t classes);

  // tokens i32 [rows.rows] -> logits [rows.rows, classes], a sample's in the row of its last token
  Tensor forward(const Tensor& tokens, const StepContext& context, const TokenRows& rows);

  int64_t classes() const { return classes_; }
  Device device() const override { return body_.device(); }
  FlopCounts flops() const override;
  const MoeConfig& moe_config() const override { return body_.moe_config(); }
  std::vector<int64_t> moe_blocks() const override { return body_.moe_blocks(); }
  void end_step(const RoutingStep& routing) override { body_.end_step(routing); }

 private:
  Decoder body_;
  Linear head_;
  int64_t classes_;
};

}  // namespace adagate
