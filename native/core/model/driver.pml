// How the driver of a shared port sleeps on io_uring (linux/uring_driver.cc) and is called (Port::Unlock), for the model checker spin. The
// ring's completion queue is plain memory that any thread empties under the mutex; the driver's wait ends when something stands in it *at that
// moment*. So a completion that another thread takes before the driver's wait has begun wakes nobody.
//
// Modelled: threads that publish work for the driver; threads that reap; the driver's turn, its call into the kernel in two steps (submit, wait),
// the read of the eventfd that calls it; a completion that leaves the driver something to do (a cancel to be asked again). Each stretch under the
// mutex is one d_step. Not modelled: what the work is, timers, overflow, memory order.
//
// Property nothing_slept_over: where nobody can go on, no work is left to the driver.
//
// scripts/model.mjs runs it; README.md says which step is which function.

#ifndef PUBLISHERS
#define PUBLISHERS 2
#endif
#ifndef WORKS
#define WORKS 2  // of each
#endif
#ifndef REAPS
#define REAPS 3  // of the thread that reaps
#endif

bool nothing_slept_over;
#define RULE(name, condition) name = (condition); assert(name)

// Under the mutex.
byte work;           // published for the driver
bool waits, kicked;  // driver_waits_, driver_kicked_
bool wanted;         // kick_wanted_
bool watched;        // kick_watched_
// The kernel's.
byte counter;        // of the eventfd, at most 1 here: more are the same
bool reading;        // the read of it is with the kernel
byte retries = 1;    // cancels that will find their operation between two tries, and have to be asked again
bool canceling;      // such a cancel is with the kernel
// The completion queue: a kick that is in it stands before or behind the cancel's completion.
bool cq_kick, cq_cancel, kick_first;

inline KernelReads() {
  if
  :: reading && counter > 0 ->
     counter = 0; reading = false; cq_kick = true; kick_first = !cq_cancel
  :: else
  fi
}

inline TakeCancel() {
  cq_cancel = false; kick_first = cq_kick;
  work++;  // cancels_
#ifndef MUTANT_FORGETS_AGAIN
  wanted = true
#endif
}

// UringPort::Reap of a thread that isn't the driver.
inline ReapElsewhere() {
#ifdef MUTANT_TAKES_KICK
  if
  :: cq_kick -> cq_kick = false; kick_first = false; watched = false
  :: else
  fi;
  if
  :: cq_cancel -> TakeCancel()
  :: else
  fi
#else
  if
  :: cq_cancel && !(cq_kick && kick_first) -> TakeCancel()
  :: else
  fi
#endif
}

// Port::Unlock, its part under the mutex.
inline Unlock() {
  kick = wanted && waits && !kicked;
  kicked = kicked || kick;
  wanted = false
}

proctype Publisher() {
  byte left = WORKS;
  bool kick;
  do
  :: left > 0 ->
     d_step { left--; work++; wanted = true; Unlock() };
     if
     :: kick -> d_step { counter = 1; KernelReads() }
     :: else
     fi
  :: left == 0 -> break
  od
}

proctype Reaper() {
  byte left = REAPS;
  bool kick;
  do
  :: left > 0 ->
     d_step { left--; ReapElsewhere(); Unlock() };
     if
     :: kick -> d_step { counter = 1; KernelReads() }
     :: else
     fi
  :: left == 0 -> break
  od
}

proctype Driver() {
  bool submit_read, submit_cancel;
  do
  :: d_step {
#ifndef MUTANT_KEEPS_KICKED
       kicked = false;
#endif
       waits = false;
       if
       :: cq_kick -> cq_kick = false; watched = false
       :: else
       fi;
       if
       :: cq_cancel -> TakeCancel()
       :: else
       fi;
       kick_first = false;
       // DriverTurn, Pump. The first turn starts the cancel that has to be asked again.
       work = 0;
       submit_cancel = retries > 0;
       submit_read = !watched;
       watched = true;
       wanted = false;
#ifndef MUTANT_WAITS_LATE
       waits = true
#endif
     };
     // io_uring_enter: submits …
     d_step {
       if
       :: submit_read -> reading = true; submit_read = false
       :: else
       fi;
       if
       :: submit_cancel -> retries--; cq_cancel = true; submit_cancel = false
       :: else
       fi;
       KernelReads()
     };
#ifdef MUTANT_WAITS_LATE
     waits = true;
#endif
     // … and waits.
end: (cq_kick || cq_cancel)
  od
}

init {
  byte i;
  atomic {
    for (i : 1 .. PUBLISHERS) { run Publisher() }
    run Reaper();
    run Driver()
  }
  d_step { timeout -> RULE(nothing_slept_over, work == 0) }
}
