// The packet queue of a shared port, for the model checker spin: who is released, by whom, and that nobody sleeps over a packet.
// Each d_step is one stretch of code under the port's mutex. Signals are sent after the unlock, one by one.
//
// Modelled: the FIFO; blocking gets with and without a timeout, also 0, cut into slices between which the waiter keeps its turn; gets
// of several packets; event loops with armed gets, claims, aborts and jobs; posts; the concurrency limit; blocking(fn), also with a
// get inside; threads that end in a wait, with a packet handed to them or without, and elsewhere; the watcher, which lends the places
// of threads that sleep in the kernel and voids claims; close, and the last detach, which closes.
// Not modelled: memory order (the mutex is taken for granted), the ring and who drives it, operations (each packet is a post) and their
// reservations, a thread that uses several ports, that mixes blocking and async gets or nests blocking(fn), and time: a timeout, the
// end of a slice and a tick may come at any moment, so what holds here holds for every length.
//
// scripts/model.mjs runs it; properties, configurations and mutants are in README.md.

// ---- configuration -----------------------------------------------------------------------------------------------------------------
#ifndef THREADS
#define THREADS 2  // threads that wait in a blocking get
#endif
#ifndef LOOPS
#define LOOPS 0  // threads that wait on their event loop
#endif
#ifndef POSTERS
#define POSTERS 2
#endif
#ifndef PACKETS
#define PACKETS 3  // posts of all posters: one each, the rest by the first
#endif
#ifndef CONCURRENCY
#define CONCURRENCY 1
#endif
// How many of the events below may happen in one run, in any mix. Each of them is there (1) or isn't (0).
#ifndef UNUSUAL
#define UNUSUAL 2
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 0  // a wait's time runs out
#endif
#ifndef POLLS
#define POLLS 0  // a get with timeout 0; with 2, thread 0 makes no others, and any number of them
#endif
#ifndef BLOCKING
#define BLOCKING 0  // port.blocking(fn), for a while or for ever
#endif
#ifndef SLEEPS
#define SLEEPS 0  // a thread sleeps in the kernel undeclared, for a while or for ever
#endif
#ifndef ABORTS
#define ABORTS 0  // an armed get is aborted
#endif
#ifndef HANGS
#define HANGS 0  // an event loop stays in a job of somebody else's for ever, its get armed
#endif
#ifndef ENDS
#define ENDS 0  // a thread ends, wherever it is
#endif
#ifndef CLOSES
#define CLOSES 0  // the port is closed
#endif

#define WAITERS (THREADS + LOOPS)  // threads are 0 to THREADS - 1, loops come behind
#define WATCHER (WAITERS + POSTERS)
#define ACTORS (WATCHER + 1)
#define IS_LOOP(w) ((w) >= THREADS)
#define MAX_OF(w) ((w) == 0 -> 2 : 1)  // how many packets a get of w takes at most
#define BIT(n) (1 << (n))

// What came of a step under the mutex.
#define NOTHING 1  // a thread's get ends with null; a loop stays armed
#define GOT 2
#define WAITING 3
#define CLOSED 4
#define LEFT 5

// A thread's place.
#define NONE 0
#define HELD 1
#define LENT 2  // given up by the watcher for a thread that sleeps in the kernel

// ---- the port's state, all under its mutex -----------------------------------------------------------------------------------------
bool closed;
byte attached = WAITERS;
byte fifo[PACKETS];     // packets by the number of their entry, from 1; the head is fifo[0]
byte packets;           // in the FIFO
byte running;           // places taken
byte claims;            // loops that were woken for a packet and have neither come nor been given up
byte stack[WAITERS];    // blocked threads, the newest last
byte depth;
byte loops[WAITERS];    // armed event loops, the newest last
byte armed;
byte place[WAITERS];
byte handed[WAITERS];   // the packet that a blocked thread was given
bool woken[WAITERS];    // a loop: a wake is on its way, and no second one is sent before it has come
bool claimed[WAITERS];  // a loop: it is one of claims
bool aged[WAITERS];     // a loop: its claim has seen a tick
bool asleep[WAITERS];   // a thread outside of a get: it sleeps in the kernel, for the watcher to see
bool seen[WAITERS];     // a thread: the last sample found it there, and it hasn't run since
bool given;             // packets were given out since the last tick

// ---- outside of the mutex ----------------------------------------------------------------------------------------------------------
bool flag[WAITERS];     // the waiter's own signal
byte wake[ACTORS];      // whom an actor has still to signal, by bits
byte unusual = UNUSUAL;

#include "properties.pml"
#include "waiters.pml"

// ---- the actors --------------------------------------------------------------------------------------------------------------------
// One signal, after the unlock. The waiter may have come by itself meanwhile, got the packet, and gone on to another get or left.
inline Send(me) {
  i = 0;
  do
  :: !(wake[me] & BIT(i)) -> i++
  :: else -> break
  od;
  wake[me] = wake[me] & ~BIT(i);
  coming[i]--;
#ifdef READING_RECORD_DIES
  RULE(record_alive, !left[i]);
#endif
  if
  :: !left[i] -> flag[i] = true
  :: else  // the waiter's record outlives its thread
  fi
}

proctype Thread(byte self) {
  byte outcome;
  byte fn;    // blocking(fn): 0 outside, 1 inside, 2 inside with a place to take again
  bool poll;  // the timeout is 0
  bool woke;
outside:
  do
  :: d_step { wake[self] -> Send(self) }
  :: atomic {
       !wake[self] ->
       if
       :: !(POLLS == 2 && self == 0)
       :: POLLS == 1 && unusual > 0 -> unusual--; poll = true
       :: POLLS == 2 && self == 0 -> poll = true
       fi;
       d_step {
         Take(self, MAX_OF(self));
         if
         :: outcome == NOTHING && poll -> ComeBackEmpty(self)
#ifndef MUTANT_MISSED_POST
         :: outcome == NOTHING && !poll -> Wait(self)
#endif
         :: else
         fi;
         Unlock()
       };
       if
       :: outcome == CLOSED -> outcome = 0; poll = false; fn = 0; goto over
       :: outcome == WAITING -> goto wait
#ifdef MUTANT_MISSED_POST
       :: outcome == NOTHING && !poll -> goto checked
#endif
       :: else -> outcome = 0; poll = false
       fi
     }
  :: d_step { BLOCKING && unusual > 0 && !wake[self] && fn == 0 -> unusual--; BeginBlocking(self, self); Unlock() }
  :: d_step { BLOCKING && !wake[self] && fn != 0 -> EndBlocking(self); Unlock() }
  // fn may take for ever, unless a get in it has made the thread run again.
  :: d_step { BLOCKING && unusual > 0 && !wake[self] && fn != 0 && !counts[self] && place[self] != LENT -> unusual--; hung++ };
     goto forever
  :: atomic { SLEEPS && unusual > 0 && !wake[self] && place[self] == HELD && !closed -> unusual--; asleep[self] = true };
     if
     :: d_step { asleep[self] = false; seen[self] = false }
     :: hung++; goto forever
     fi
  :: d_step { ENDS && unusual > 0 && !wake[self] && !closed -> unusual--; Detach(self, self); fn = 0; Unlock() }; goto over
  od;

#ifdef MUTANT_MISSED_POST
checked:
  skip;
  d_step { Wait(self); Unlock() };
#endif
wait:
  do
  // The signal is cleared before the waiter looks, so that one that comes after the look is still there.
#ifndef MUTANT_CLEARS_LATE
  :: d_step { flag[self] && !woke -> flag[self] = false; woke = true }
#endif
  // Woken, or a slice is over, or the time, or the thread. Nobody can tell a waiter between two slices from one in a slice.
  :: atomic {
       if
       :: d_step { Look(self); Unlock() }
       :: d_step { TIMEOUTS && unusual > 0 && !closed -> unusual--; Withdraw(self); Unlock() }
       :: d_step { ENDS && unusual > 0 && !closed -> unusual--; WithdrawEnding(self); Detach(self, self); outcome = LEFT; Unlock() }
       fi;
       woke = false;
       if
       :: outcome == WAITING
       :: outcome == CLOSED || outcome == LEFT -> outcome = 0; fn = 0; goto over
       :: outcome == GOT || outcome == NOTHING -> outcome = 0; goto outside
       fi
     }
#ifdef MUTANT_CLEARS_LATE
     ; flag[self] = false
#endif
  // Only the end of its slice would tell it.
  :: d_step { (handed[self] || closed) && !flag[self] && !coming[self] && !woke -> RULE(no_lost_signal, false) }
  od;
forever:
  false;
over:
  do
  :: d_step { wake[self] -> Send(self) }
  od
}

#if LOOPS > 0
proctype Loop(byte self) {
  byte outcome;
idle:
  do
  :: d_step { wake[self] -> Send(self) }
  :: atomic {
       !wake[self] ->
       d_step { Arm(self); Unlock() };
       if
       :: outcome == GOT -> outcome = 0; goto job
       :: outcome == CLOSED -> outcome = 0; goto over
       :: outcome == WAITING -> outcome = 0; goto wait
       fi
     }
  :: d_step { ENDS && unusual > 0 && !wake[self] && !closed -> unusual--; Detach(self, self); Unlock() }; goto over
  od;
wait:
  do
  :: d_step { flag[self] -> flag[self] = false };  // before it looks
     atomic {
       d_step { Arrive(self); Unlock() };
       if
       :: outcome == GOT -> outcome = 0; goto job
       :: outcome == CLOSED -> outcome = 0; goto over
       :: outcome == NOTHING -> outcome = 0
       fi
     }
  :: d_step { ABORTS && unusual > 0 && !closed -> unusual--; Disarm(self); Release(self); Unlock() }; goto idle
  :: d_step { ENDS && unusual > 0 && !closed -> unusual--; Disarm(self); Detach(self, self); Unlock() }; goto over
  :: d_step { HANGS && unusual > 0 -> unusual--; hung++; waiting-- }; goto forever
  od;
job:
  do
  :: d_step { Leave(self, self); Unlock() }; goto idle
  od;
forever:
  false;
over:
  do
  :: d_step { wake[self] -> Send(self) }
  od
}
#endif

proctype Poster(byte self) {
  byte unsent = (self == WAITERS -> PACKETS - POSTERS + 1 : 1);
  do
  :: d_step { wake[self] -> Send(self) }
  :: d_step { !wake[self] && unsent > 0 && !closed -> unsent--; Append(self); Unlock() }
  :: d_step { CLOSES && self == WAITERS && unusual > 0 && !wake[self] && !closed -> unusual--; CloseAll(self); Unlock() }
  :: !wake[self] && (unsent == 0 || closed) -> break
  od
}

#if LOOPS > 0 || SLEEPS
proctype Watcher() {
  do
  :: d_step { wake[WATCHER] -> Send(WATCHER) }
  :: d_step { !wake[WATCHER] && !closed -> Tick(WATCHER); Unlock() }
  :: !wake[WATCHER] && closed -> break
  od
}
#endif

init {
  atomic {
    i = 0;
    do
    :: i < THREADS -> run Thread(i); i++
#if LOOPS > 0
    :: i >= THREADS && i < WAITERS -> run Loop(i); i++
#endif
    :: i >= WAITERS && i < WAITERS + POSTERS -> run Poster(i); i++
    :: else -> break
    od;
#if LOOPS > 0 || SLEEPS
    run Watcher()
#endif
  }
}
