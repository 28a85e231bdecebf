#include <cctype>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "train/config/config_writer.h"
#include "train/config/run_config.h"
#include "train/config/yaml_loader.h"

namespace adagate {
namespace {

constexpr std::string_view kIntroduction = R"(# Configuration

<!-- Written by `adagate config --reference`; do not edit. The tests compare it. -->

A run is told everything by one YAML file:

```yaml
base: wikitext2.yaml          # optional: another file, or a list, relative to this one
moe:
  experts: 8
  gate: {policy: adaptive, threshold: 0.1}
```

Keys not given keep their defaults. Values are looked up in this order, the last one wins: the
defaults below, the files named by `base`, the file itself, further files on the command line, each
`--set key.path=value`:

```
mpirun -n 2 adagate train configs/quickstart.yaml --set train.batch=16 --set moe.gate.threshold=0.2
```

A key that does not exist, a value of the wrong type or out of its range, a key given twice and keys
that contradict each other end the program before any work, with the file, the line and the nearest
valid word. `adagate config FILE` prints the effective configuration, which every run also saves as
`config.yaml` in its output directory.

A *duration* is a number and a unit: `2000s` optimizer steps, `3.2Mt` tokens (`k`, `M`, `G` stand
for thousands, millions, billions), `1e` epochs. Tokens and epochs are rounded up to whole steps.

Values are YAML 1.2: `true` or `false` (also `True`, `TRUE`), numbers such as `16`, `0x10`, `3e-4`;
`yes`, `no`, `on` and `off` are no booleans. The value of `--set` is one line: a text in quotes, a
list `[a, b]`, a mapping `{key: value}`, or else everything behind the `=` as it stands, so that
`--set 'output=run #1'` needs no more quotes than the shell's. Aliases, tags and several documents
in a file are refused.

*Paths* are relative to the directory the program is started in. In the keys that hold one, in
`base` and in the options of the command line, a leading `~` is the home directory (`~name` that of
another user), `${NAME}` and `$NAME` are environment variables, which must be set; `$$` stands for
`$`, `./~` for a file named `~`. The saved `config.yaml` has the path that came of it.
)";

std::string code(std::string_view text) {
  return fmt::format("`{}`", text);
}

std::string range_of(const FieldInfo& field) {
  const Constraint& c = field.constraint;
  if (!c.choices.empty()) return fmt::format("`{}`", fmt::join(c.choices, "`, `"));
  bool low = std::isfinite(c.minimum), high = std::isfinite(c.maximum);
  if (low && high)
    return fmt::format("{}, {} to {}", field.type, bound_text(c.minimum), bound_text(c.maximum));
  if (low && c.open_minimum) return fmt::format("{} above {}", field.type, bound_text(c.minimum));
  if (low) return fmt::format("{} from {}", field.type, bound_text(c.minimum));
  if (high) return fmt::format("{} up to {}", field.type, bound_text(c.maximum));
  return field.type;
}

// Text inside a table cell: a bar would end the cell.
std::string cell(const std::string& text) {
  std::string escaped;
  for (char c : text) escaped += c == '|' ? "\\|" : std::string(1, c);
  return escaped;
}

}  // namespace

std::string configuration_reference() {
  std::vector<FieldInfo> fields = list_fields(RunConfig{});
  std::string page(kIntroduction);
  // Tables are as wide as they need: the one place where lines are longer than elsewhere.
  auto table_of = [&](const std::string& section) {
    std::string rows;
    for (const FieldInfo& field : fields) {
      if (field.is_section || field.section != section) continue;
      rows += fmt::format("| {} | {} | {} | {} |\n", code(field.key), cell(range_of(field)),
                          field.value == "\"\"" ? "(empty)" : code(field.value), cell(field.doc));
    }
    if (!rows.empty()) page += "\n| key | value | default | meaning |\n|---|---|---|---|\n" + rows;
  };
  page += "\n## At the top\n";
  table_of("");
  for (const FieldInfo& field : fields) {
    if (!field.is_section) continue;
    std::string path = field.path();
    std::string doc = field.doc;
    doc[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(doc[0])));
    page += fmt::format("\n## {}\n\n{}.\n", path, doc);
    table_of(path);
  }
  return page;
}

}  // namespace adagate
