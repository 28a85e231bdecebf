// The words of the key `task` without the tasks, which stand on models and ranks.
#include <string>
#include <vector>

namespace adagate {

std::vector<std::string> names_of_tasks();
std::string help_of_tasks();

std::vector<std::string> names_of_tasks() {
  return {"language_modelling", "other"};
}

std::string help_of_tasks() {
  return "what to learn";
}

}  // namespace adagate
