// The table of portable errors in the order of Status.
#include "core/errors.h"

namespace cp {

namespace {
constexpr ErrorInfo kTable[] = {{"OK", 0, "no error"},
#define X(name, number, text) {#name, number, text},
                                CP_ERRORS(X)
#undef X
};
static_assert(sizeof(kTable) / sizeof(kTable[0]) == static_cast<size_t>(Status::kCount));
}  // namespace

const ErrorInfo* ErrorTable() { return kTable; }

}  // namespace cp
