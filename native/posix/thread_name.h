// The name of a native thread, for debuggers and `ps`. POSIX has no call for it.
#pragma once

namespace cp::posix {

// Of the calling thread; at most 15 characters, which is what Linux keeps.
void NameThread(const char* name);

}  // namespace cp::posix
