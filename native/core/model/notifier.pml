// What wakes an event loop, for the model checker spin: posix/loop_notifier.cc (a flag over a descriptor) and the event loop that watches the
// descriptor (posix/addon/event_loop.cc), in both of its forms: the loop itself clears and looks (PlainLoop), or a thread clears, and calls the loop,
// which looks (ThreadLoop). What is modelled is who misses what: each read or write of the flag, the descriptor and `called` is a step of its
// own. Memory order isn't: the flag and `called` are sequentially consistent, the descriptor is the kernel's.
//
// Property all_looked_at: where nobody can go on, everything that was published has been looked at. Publishing and looking are done under the
// port's mutex. The number of publications is bounded, so no loop can go on for ever; two by each of two notifiers are the fewest with which
// a flag that stays set over an empty descriptor does harm.
//
// scripts/model.mjs runs it; README.md says which step is which function.

#ifndef NOTIFIERS
#define NOTIFIERS 2
#endif
#ifndef PUBLICATIONS
#define PUBLICATIONS 3  // of each
#endif
#ifndef OWN_WAKES
#define OWN_WAKES 1  // EventLoop::Wake, which raises the descriptor without the flag
#endif
#ifndef HELPER
#define HELPER 0  // 1: a thread waits for the descriptor (ThreadLoop)
#endif

bool all_looked_at;
#define RULE(name, condition) name = (condition); assert(name)

byte published;
byte looked;  // how much of it the loop has seen
bool readable;
bool notified;
bool called;
byte calls;  // queued to the event loop's thread

inline Look() { looked = published }

// LoopNotifier::ClearNotification.
inline Clear() {
#ifdef MUTANT_CLEARS_FLAG_FIRST
  notified = false;
  readable = false
#else
  readable = false;
  notified = false
#endif
}

proctype Notifier() {
  byte left = PUBLICATIONS;
  bool was;
  do
  :: left > 0 ->
     left--;
     published++;
     atomic { was = notified; notified = true };
     if
     :: !was -> readable = true
     :: else
     fi
  :: left == 0 -> break
  od
}

proctype Waker() {
  byte left = OWN_WAKES;
  do
  :: left > 0 -> left--; readable = true
  :: left == 0 -> break
  od
}

#if HELPER
proctype Helper() {
  bool was;
end:
  do
  :: readable ->
     Clear();
     atomic { was = called; called = true };
     if
     :: !was -> calls++
     :: else
     fi
  od
}

proctype Loop() {
end:
  do
  :: calls > 0 ->
     calls--;
#ifdef MUTANT_CALLED_AFTER_LOOK
     Look();
     called = false
#else
     called = false;
     Look()
#endif
  od
}
#else
proctype Loop() {
end:
  do
  :: readable ->
#ifdef MUTANT_LOOKS_FIRST
     Look();
     Clear()
#else
     Clear();
     Look()
#endif
  od
}
#endif

init {
  byte i;
  atomic {
    for (i : 1 .. NOTIFIERS) { run Notifier() }
    run Waker();
#if HELPER
    run Helper();
#endif
    run Loop()
  }
  d_step { timeout -> RULE(all_looked_at, looked == published) }
}
