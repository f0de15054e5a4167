// A descriptor that any thread can make readable and its reader unreadable again: an eventfd(2) on Linux, a pipe(2) elsewhere.
#pragma once

namespace cp::posix {

class SignalDescriptor {
 public:
  SignalDescriptor() = default;
  ~SignalDescriptor();
  SignalDescriptor(const SignalDescriptor&) = delete;
  SignalDescriptor& operator=(const SignalDescriptor&) = delete;

  // False: no descriptor left (errno). Once.
  bool Open();
  // To wait for: readable from Raise to Clear. -1: not open.
  int descriptor() const { return read_; }
  // Any thread; never blocks, never fails: where there is no room for one more, it is readable already.
  void Raise();
  // Unreadable again, however often it was raised. Whoever raises it from here on makes it readable anew.
  void Clear();

 private:
  int read_ = -1;
  int write_ = -1;  // the same descriptor where it is an eventfd
};

}  // namespace cp::posix
