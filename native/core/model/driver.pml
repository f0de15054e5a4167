// How the driver of a shared port sleeps on io_uring (linux/uring_driver.cc) and is called (Port::Unlock), for the model checker spin. The
// ring's completion queue is plain memory that any thread empties under the mutex; the driver's wait ends when something stands in it *at that
// moment*. So a completion that another thread takes before the driver's wait has begun wakes nobody. And while packets wait and operations begin
// and end, the driver's wait has an end of its own, a millisecond away (the doze), to which starts are left (Port::Postpone).
//
// Modelled: threads that publish work for the driver; threads with packets before them, whose starts may be postponed, and which then find no
// packet, block, leave, or compute for ever; threads that reap; a close of the port at any moment, and its stop by the last that leaves; the
// driver's turn, its call into the kernel in two steps (submit, wait), the read of the eventfd that calls it; a completion that leaves the
// driver something to do (a cancel to be asked again). Each stretch under the mutex is one d_step. Not modelled: what the work is, timers,
// the watcher, overflow, memory order.
//
// Properties: nothing_slept_over: where nobody can go on, no work is left to the driver. doze_has_an_end: whenever the mutex is free, what is
// postponed is seen by a turn that is on its way, or by the end of the doze. told_at_rest: a thread that has found no packet, blocks or has left
// leaves nothing postponed to the doze. stop_ends: the driver of a stopped port ends, and the kernel has let go of everything by then.
// each_submitted: in every run, each start is submitted at last.
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
#ifndef RETRIES
#define RETRIES 1
#endif
#ifndef STARTERS
#define STARTERS 0  // threads with packets before them
#endif
#ifndef STARTS
#define STARTS 2  // of each
#endif
#ifndef RESTS
#define RESTS 1  // how often each finds no packet, or blocks
#endif
#ifndef POSTS
#define POSTS 0  // by which packets wait again
#endif
#ifndef CLOSES
#define CLOSES 0
#endif
#define POSTPONED_MAX 2  // kPostponedMax

hidden byte nothing_slept_over, doze_has_an_end, told_at_rest, stop_ends;
#define RULE(name, condition) name = (condition); assert(name)

// Under the mutex.
byte work;           // published for the driver
bool waits, kicked;  // driver_waits_, driver_kicked_
bool wanted;         // kick_wanted_
bool watched;        // kick_watched_
bool dozes;          // driver_dozes_
byte postponed;      // postponed_
bool timed;          // the driver's wait has an end within kDozeMs
bool queued = STARTERS > 0;  // the FIFO holds packets
bool moved;          // an operation has begun or ended since the driver's last turn (moves_before_)
byte awaited;        // turns of the driver that somebody waits for (WaitForDriver)
bool closing, stopping, over;
// Without starters one more stays, and the port with it: a stop would tell the driver of what was left to it.
byte attached = PUBLISHERS + 1 + (STARTERS > 0 -> STARTERS : 1);
// Operations of the starters. `flight`: in_kernel_, those whose end nobody has seen.
byte flight, written;  // written: in the ring, not published to the kernel yet
bool cancels;          // behind those in the ring: cancels of everything that is under way
// The kernel's.
byte counter;        // of the eventfd, at most 1 here: more are the same
bool reading;        // the read of it is with the kernel
byte retries = RETRIES;  // cancels that will find their operation between two tries, and have to be asked again
bool canceling;      // such a cancel is with the kernel
byte inside;         // operations with the kernel
// The completion queue: a kick that is in it stands before or behind the cancel's completion. `ended`: operations' ends.
bool cq_kick, cq_cancel, kick_first;
byte ended;

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

// UringPort::Ended, Port::Complete. Who takes the ends of operations out of the queue gives the FIFO their packets.
inline TakeEnds() {
  if
  :: ended > 0 -> flight = flight - ended; ended = 0; moved = true; queued = !closing
  :: else
  fi
}

// UringPort::Reap of a thread that isn't the driver. (That it takes the ends from behind a kick, too, adds runs and takes none away.)
inline ReapElsewhere() {
  TakeEnds();
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
  wanted = false;
  RULE(doze_has_an_end, !(postponed > 0 && waits && !kicked && !timed))
}

// … and behind it: Port::Kick.
inline Call() {
  if
  :: kick -> d_step { counter = 1; KernelReads() }
  :: else
  fi
}

// Port::Postpone of a thread that has its place.
inline Postpone() {
  if
#ifdef MUTANT_POSTPONES_ALWAYS
  :: wanted && queued && postponed < POSTPONED_MAX -> wanted = false; postponed++
#else
  :: wanted && dozes && queued && postponed < POSTPONED_MAX -> wanted = false; postponed++
#endif
  :: else
  fi
}

// A thread that finds no packet (EnterShared, TakeShared before its wait), whose job ends (EndJob) or that blocks (BeginBlocking).
inline Rest() {
#ifndef MUTANT_RESTS_QUIETLY
  if
  :: postponed > 0 -> wanted = true
  :: else
  fi;
#endif
  Unlock();
  RULE(told_at_rest, !(postponed > 0 && waits && !kicked))
}

// Port::Close: the cancels stand in the ring behind what was started before.
inline Close() {
  if
  :: !closing ->
     closing = true; queued = false;
     if
     :: flight > 0 -> cancels = true; work++; wanted = true
     :: else
     fi
  :: else
  fi
}

// The last one to leave stops the port: Close, then Stop. The driver's thread is waited for.
inline Leave() {
  d_step { attached--; last = (attached == 0) };
  if
  :: last ->
     d_step { Close(); Unlock() };
     Call();
     d_step {
       stopping = true;
#ifndef MUTANT_STOPS_QUIETLY
       wanted = true;
#endif
       Unlock()
     };
     Call();
     (over)
  :: else
  fi
}

// A thread that has no packets before it, or no place: the driver is told of each of its starts.
proctype Publisher() {
  byte left = WORKS;
  bool kick, last;
  do
  :: left > 0 ->
     d_step { left--; work++; wanted = true; Unlock() };
     Call()
  :: left == 0 -> break
  od;
  Leave()
}

proctype Starter() {
  byte left = STARTS, rests = RESTS;
  bool kick, last;
  do
  :: left > 0 ->
     d_step {
       left--;
       if
       :: !closing -> written++; flight++; work++; moved = true; wanted = true; Postpone()
       :: else
       fi;
       Unlock()
     };
     Call()
  :: d_step { queued -> queued = false }  // takes the last packet
  :: d_step { rests > 0 && !queued -> rests--; Rest() };  // finds none
     Call()
  :: d_step { rests > 0 -> rests--; Rest() };  // blocks
     Call()
  :: break  // computes for ever
  :: // Port::Detach: what works in its memory is cancelled, and two turns of the driver are waited for.
     d_step {
       if
       :: flight > 0 -> cancels = true; work++
       :: else
       fi;
#ifndef MUTANT_LEAVES_QUIETLY
       wanted = true;
       awaited = 2;
#endif
       Unlock();
       RULE(told_at_rest, !(postponed > 0 && waits && !kicked))
     };
     Call();
     (awaited == 0 || over);
     Leave();
     break
  od
}

proctype Poster() {
  byte left = POSTS;
  do
  :: d_step { left > 0 -> left--; queued = !closing }
  :: left == 0 -> break
  od
}

// Any thread may close the port, at any moment.
proctype Closer() {
  bool kick;
  d_step { Close(); Unlock() };
  Call()
}

proctype Reaper() {
  byte left = REAPS;
  bool kick, last;
  do
  :: left > 0 ->
     d_step { left--; ReapElsewhere(); Unlock() };
     Call()
  :: left == 0 -> break
  od;
  Leave()
}

proctype Driver() {
  bool submit_read, submit_cancel, submit_close;
  byte submit;
  do
  :: d_step {
#ifndef MUTANT_KEEPS_KICKED
       kicked = false;
#endif
       waits = false;
       TakeEnds();
       if
       :: cq_kick -> cq_kick = false; watched = false
       :: else
       fi;
       if
       :: cq_cancel -> TakeCancel()
       :: else
       fi;
       kick_first = false;
       // DriverTurn: whether it dozes, and how long it may wait.
       postponed = 0;
#ifdef MUTANT_DOZES_LONGER
       dozes = dozes || (queued && moved);  // says so still when its wait has no end any more
#else
       dozes = queued && moved;
#endif
#ifdef MUTANT_DOZES_ON
       timed = false;
#else
       timed = queued && moved;
#endif
       moved = false;
       if
       :: awaited > 0 -> awaited--; timed = true  // it goes round at once
       :: else
       fi;
       over = stopping && flight == 0;
       // Pump. The first turn starts the cancel that has to be asked again. What is written is published.
       work = 0;
       submit_cancel = retries > 0;
       submit = written; written = 0;
       submit_close = cancels; cancels = false;
       submit_read = !watched;
       watched = true;
       wanted = false;
#ifndef MUTANT_WAITS_LATE
       waits = true
#endif
     };
     if
     :: over -> break
     :: else
     fi;
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
       inside = inside + submit; submit = 0;
       if
       :: submit_close -> ended = ended + inside; inside = 0; submit_close = false
       :: else
       fi;
       KernelReads()
     };
#ifdef MUTANT_WAITS_LATE
     waits = true;
#endif
     // … and waits.
end: (cq_kick || cq_cancel || ended > 0 || timed)
  od
}

init {
  byte i = 0;
  atomic {
    do
    :: i < PUBLISHERS -> run Publisher(); i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < STARTERS -> run Starter(); i++
    :: else -> break
    od;
    run Reaper();
    if
    :: POSTS > 0 -> run Poster()
    :: else
    fi;
    if
    :: CLOSES > 0 -> run Closer()
    :: else
    fi;
    run Driver()
  }
  d_step {
    timeout ->
    RULE(nothing_slept_over, work == 0);
    RULE(stop_ends, !stopping || (over && inside == 0 && flight == 0))
  }
}

#ifdef EACH_SUBMITTED
ltl each_submitted { []<> (work == 0) }
#endif
