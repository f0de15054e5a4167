// How a thread of a shared port sleeps (core/waiters.cc, Wake) and is woken, for the model checker spin: on a condition until it has slept through a
// whole interval, then in the kernel on two descriptors, one of its own and its event loop's (LoopNotifier::Doze). Each stretch under the
// wake's mutex is one atomic step; each access of a descriptor is a step of its own. The event loop never runs meanwhile, so who has been sent for
// once stays so: a further send makes nothing ready (uv_async_send). Not modelled: time (any sleep on the condition may end by itself, as for a look,
// the doze may not).
//
// Property nothing_slept_over, where nobody can go on: the thread has taken the token of every Unpark, and doesn't doze over a send for its event
// loop, its own end among them.
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
bool token, dozes;  // token_, dozes_, under the mutex
bool signalled;     // the condition's
bool raised;        // the thread's own descriptor is readable
bool pending;       // the event loop was sent for, perhaps before the thread came here, with the descriptor read empty since
bool edge;          // its descriptor has become ready, and the doze hasn't told of it yet
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

// uv_async_send of the handle by which a thread is terminated.
proctype Caller() {
  byte left = CALLS;
  bool was;
  do
  :: left > 0 ->
     left--;
     atomic { was = pending; pending = true };
     if
     :: !was -> edge = true
     :: else
     fi
  :: break
  od
}

// Wake::Park again and again. A signal to a condition that nobody waits on is lost, so there is none where a sleep on it begins.
proctype Sleeper() {
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
  // It was sent for: it looks, and doesn't doze.
#ifndef MUTANT_TRUSTS_DESCRIPTOR
  if
  :: pending -> goto park
  :: else
  fi;
#endif
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
  (raised || edge);
  raised = false;
  edge = false;
#ifndef MUTANT_KEEPS_DOZES
  dozes = false;
#endif
  goto park
}

init {
  byte i;
  atomic {
    if
    :: pending = true
    :: skip
    fi;
    for (i : 1 .. WAKERS) { run Waker() }
    run Caller();
    run Sleeper()
  }
  d_step { timeout -> RULE(nothing_slept_over, seen == published && !token && !(dozes && pending)) }
}
