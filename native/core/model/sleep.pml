// How a thread of a shared port sleeps (core/waiters.cc, Wake) and is woken, for the model checker spin: on a condition until it has slept through a
// whole interval, then in the kernel on two descriptors, one of its own and its event loop's (LoopNotifier::Doze). Each stretch under the
// wake's mutex is one atomic step; each access of a descriptor is a step of its own. Not modelled: time (any sleep on the condition may end by
// itself, the doze may not), and what the event loop does, which never runs meanwhile.
//
// Property nothing_slept_over, where nobody can go on: the thread has taken the token of every Unpark, and has come back once for what its event loop was
// called for, if it has slept in the kernel since; so it learns that it is terminated.
//
// scripts/model.mjs runs it; README.md says which step is which function.

#ifndef WAKERS
#define WAKERS 2
#endif
#ifndef UNPARKS
#define UNPARKS 3  // of each
#endif
#ifndef CALLS
#define CALLS 2  // of the event loop
#endif
#ifndef TIMES
#define TIMES 4  // sleeps on the condition that end by themselves
#endif

bool nothing_slept_over;
#define RULE(name, condition) name = (condition); assert(name)

byte published, seen;
bool token, dozes, loop_called;  // token_, dozes_, loop_called_, under the mutex
bool signalled;                  // the condition's
bool raised;                     // the thread's own descriptor is readable
bool loop_ready;                 // the event loop's is, for ever: nobody runs it
bool heard;                      // the thread has left its wait for it
byte times = TIMES;

proctype Waker() {
  byte left = UNPARKS;
  bool doze, was;
  do
  :: left > 0 ->
     left--;
     published++;
     d_step { was = token; token = true; doze = dozes };
#ifdef MUTANT_SIGNALS_ALWAYS
     doze = false;
#endif
     if
     :: was
     :: !was && doze -> raised = true
     :: !was && !doze -> signalled = true
     fi
  :: left == 0 -> break
  od
}

proctype Caller() {
  byte left = CALLS;
  do
  :: left > 0 -> left--; loop_ready = true
  :: break
  od
}

// Wake::Park again and again. A signal to a condition that nobody waits on is lost, so there is none where a sleep on it begins.
proctype Sleeper() {
  bool quiet;
park:
  atomic {
    if
    :: token -> token = false; seen = published
    :: else -> signalled = false
    fi
  };
end_condition:
  do
  :: signalled -> goto park
  :: times > 0 -> times--; break
  od;
#ifdef MUTANT_DOZES_LATE
  if
  :: token -> goto park
  :: else
  fi;
  dozes = true;
#else
  atomic {
    if
    :: token
    :: else -> dozes = true
    fi
  };
  if
  :: !dozes -> goto park
  :: else
  fi;
#endif
end_doze:
  if
  :: loop_called  // asked, and no more
  :: !loop_called && (raised || loop_ready)
  fi;
  raised = false;
  quiet = !loop_ready;
  d_step {
#ifndef MUTANT_KEEPS_DOZES
    dozes = false;
#endif
#ifndef MUTANT_FORGETS_CALL
    heard = heard || (!quiet && !loop_called);
#endif
    loop_called = !quiet
  };
  goto park
}

init {
  byte i;
  atomic {
    for (i : 1 .. WAKERS) { run Waker() }
    run Caller();
    run Sleeper()
  }
  d_step { timeout -> RULE(nothing_slept_over, seen == published && !token && (!loop_called || heard) && !(dozes && loop_ready)) }
}
