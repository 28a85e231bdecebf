// The text that a saved run was evaluated on.
#pragma once

#include <filesystem>

#include "train/saved_model.h"
#include "train/task_data.h"

namespace adagate {

// data.validation, or the held-out end of data.train; nothing else is opened. The tokens that the
// run keeps in its cache are taken where they are there, else the text where the run found it,
// tokenized into `cache`. Collective. Throws Error when neither is there, or the text is another
// than the run's.
RunData open_evaluation_data(const SavedModel& saved, const std::filesystem::path& cache);

}  // namespace adagate
