// Standard output of a program whose work matters more than what it prints.
#pragma once

#include <string_view>

namespace adagate {

// Gives standard input, output and error that were closed (`>&-`) a place that can't be used, so
// that no file of the program's own gets their number and is written into. Call it first of all.
void occupy_standard_streams();

// Writes at once. False when that fails, and ever after.
bool write_output(std::string_view text);

// errno of the write that failed first, 0 when none has: EPIPE when the reader has gone.
int output_failure();
// Takes note of one, for those who write by themselves.
void note_output_failure(int error);

// errno that writing would meet now, 0 if none is foreseen: a closed stream, a pipe without reader.
int foreseen_output_failure();

}  // namespace adagate
