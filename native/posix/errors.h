// errno to portable errors (core/errors.h), and the few questions that core asks about an errno.
#pragma once

#include <cstdint>

#include "core/errors.h"

namespace cp::posix {

Status MapErrno(int32_t number);
bool IsStreamFatal(int32_t number);
// What is short where making something failed with this errno, and what to do about it; null for any other.
const char* ExplainShortage(int32_t number);

}  // namespace cp::posix
