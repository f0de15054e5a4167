// The algorithm: what the functions of native/core/waiters.h do, under the same names. Each is called with the port's mutex held, within
// a d_step of packet_queue.pml, which includes this; `me` is the actor that sends the signals after the unlock. A #ifdef is a mutant
// or a reading of the rules that was found wrong: README.md.

// ---- places ------------------------------------------------------------------------------------------------------------------------
inline TakePlace(w) {
  if
  :: place[w] != HELD -> running++; place[w] = HELD
  :: else
  fi;
  counts[w] = true; beyond[w] = 0
}

inline GivePlaceUp(w) {
  if
#ifdef MUTANT_GIVES_LENT_UP
  :: place[w] != NONE ->
#else
  :: place[w] == HELD ->
#endif
     RULE(places_kept, running > 0); running--
  :: else
  fi;
  place[w] = NONE; counts[w] = false; beyond[w] = 0
}

// A get comes back empty: it counts its thread all the same, above the limit if need be (CONC-08).
inline ComeBackEmpty(w) {
#ifdef MUTANT_NULL_IS_FREE
  counts[w] = true;
#else
  TakePlace(w);
#endif
  outcome = NOTHING
}

// ---- the FIFO and the stacks -------------------------------------------------------------------------------------------------------
inline Pop() {
  j = fifo[0];
  k = 1;
  do
  :: k < packets -> fifo[k - 1] = fifo[k]; k++
  :: else -> break
  od;
  packets--;
  fifo[packets] = 0;
#if SLEEPS
  given = true
#endif
}

// A packet that was handed and not delivered goes back before all that entered later. (Not simply to the front: of two threads
// that end, the first has the older packet.)
inline PutBack(p) {
  k = packets;
  do
#ifdef READING_FRONT
  :: k > 0 ->
#else
  :: k > 0 && fifo[k - 1] > p ->
#endif
     fifo[k] = fifo[k - 1]; k--
  :: else -> break
  od;
  fifo[k] = p;
  packets++
}

// Takes w off, wherever it is, if it is there.
inline OffStack(w) {
  i = 0; j = 0;
  do
  :: i < depth ->
     if
     :: stack[i] != w -> stack[j] = stack[i]; j++
     :: else
     fi;
     i++
  :: else -> break
  od;
  if
  :: j < depth -> depth = j; stack[j] = 0
  :: else
  fi
}

inline OffLoops(w) {
  i = 0; j = 0;
  do
  :: i < armed ->
     if
     :: loops[i] != w -> loops[j] = loops[i]; j++
     :: else
     fi;
     i++
  :: else -> break
  od;
  if
  :: j < armed -> armed = j; loops[j] = 0
  :: else
  fi
}

inline EndClaim(w) {
  if
  :: claimed[w] -> claims--
  :: else
  fi;
  claimed[w] = false; aged[w] = false
}

inline Signal(w, me) {
  wake[me] = wake[me] | BIT(w);
  coming[w]++
}

// ---- release -----------------------------------------------------------------------------------------------------------------------
#ifdef MUTANT_WAKES_ALL
inline Hand(me) {
  do
  :: depth > 0 -> depth--; n = stack[depth]; stack[depth] = 0; woken[n] = true; Signal(n, me)
  :: else -> break
  od
}
#else
// The newest blocked thread gets the head, and a place with it.
inline Hand(me) {
#ifdef MUTANT_FIFO_WAITERS
  n = stack[0];
#else
  n = stack[depth - 1];
#endif
  MayRun();
  IsNewest(n);
  OffStack(n);
  Unqueue(n);
  Pop();
  handed[n] = j;
  TakePlace(n);
  Signal(n, me)
}
#endif

// The newest armed loop that isn't woken yet is told to come; what it finds then is seen then.
inline WakeLoop(w, me) {
  IsNewest(w);
  woken[w] = true;
  claimed[w] = true;
  claims++;
  Signal(w, me)
}

// After a packet came, a place was given up, a claim ended. A blocked thread is certainly free, so claims don't keep a packet from it.
inline Release(me) {
  do
#ifdef READING_CLAIMS_HOLD
  :: !closed && packets > claims && running + claims < CONCURRENCY && depth > 0 -> Hand(me)
#else
  :: !closed && packets > 0 && running < CONCURRENCY && depth > 0 -> Hand(me)
#endif
  :: !closed && packets > claims && running + claims < CONCURRENCY && depth == 0 ->
     n = armed;
     do
     :: n > 0 && woken[loops[n - 1]] -> n--
     :: else -> break
     od;
     if
     :: n == 0 -> break
     :: else -> n = loops[n - 1]; WakeLoop(n, me)
     fi
  :: else -> break
  od
}

inline Append(me) {
  entered++;
  fifo[packets] = entered;
  packets++;
  Release(me)
}

// ---- blocking gets -----------------------------------------------------------------------------------------------------------------
// The beginning of every get. Others may wait: a thread that runs takes the next packet without a switch (CONC-04). Giving the place up
// releases nobody: whatever packet it would free, this get takes.
inline Take(w, max) {
#ifdef MUTANT_FORGETS_PLACE
  counts[w] = false;
#else
  GivePlaceUp(w);
#endif
  outcome = NOTHING;
  if
  :: closed -> outcome = CLOSED
  :: !closed && packets > 0 && running < CONCURRENCY ->
     MayRun();
     TakePlace(w);
     n = 0;
     do
     :: n < max && packets > 0 -> Pop(); Deliver(j); n++
     :: else -> break
     od;
     outcome = GOT
  :: else
  fi
}

// Under the same lock as the Take that found nothing.
inline Wait(w) {
  flag[w] = false;  // while nobody can find w on the stack
  stack[depth] = w;
  depth++;
  Queue(w);
  outcome = WAITING
}

// A waiter that was woken, or whose slice is over, looks what became of it: what was handed decides, not the signal, which may be a late
// one of an earlier get. If nothing did, it keeps its turn.
inline Look(w) {
  outcome = WAITING;
  if
  :: closed -> handed[w] = 0; Unqueue(w); waiting--; outcome = CLOSED
  :: !closed && handed[w] -> Deliver(handed[w]); handed[w] = 0; waiting--; outcome = GOT
#ifdef MUTANT_WAKES_ALL
  :: !closed && woken[w] && packets > 0 && running < CONCURRENCY ->
     MayRun(); IsNewest(w); Unqueue(w); woken[w] = false; waiting--; TakePlace(w); Pop(); Deliver(j); outcome = GOT
  :: !closed && woken[w] && !(packets > 0 && running < CONCURRENCY) -> woken[w] = false; stack[depth] = w; depth++
#endif
#ifdef MUTANT_LOSES_TURN
  :: !closed && !handed[w] -> OffStack(w); stack[depth] = w; depth++
#endif
  :: else
  fi
}

// The time ran out. What was handed meanwhile is taken after all.
inline Withdraw(w) {
#ifdef MUTANT_TIMES_OUT_HANDED
  outcome = WAITING; handed[w] = 0;
#else
  Look(w);
#endif
  if
  :: outcome == WAITING -> OffStack(w); Unqueue(w); waiting--; ComeBackEmpty(w)
  :: else
  fi
}

// Withdraw of a thread that ends: what was handed goes back. Detach follows under the same lock, and releases.
inline WithdrawEnding(w) {
  OffStack(w);
  Unqueue(w);
  waiting--;
  if
  :: handed[w] && !closed ->
#ifndef MUTANT_LOSES_HANDED
     PutBack(handed[w])
#endif
  :: else
  fi;
  handed[w] = 0
}

// ---- event loops -------------------------------------------------------------------------------------------------------------------
// An async get, or what a dispatch does between two packets.
inline Arm(w) {
  Take(w, 1);
  if
  :: outcome == NOTHING -> loops[armed] = w; armed++; Queue(w); outcome = WAITING
  :: else
  fi
}

// The loop comes because it was woken, perhaps by a wake that is older than its get. It releases nobody: it takes the packet that its
// claim stood for, or there is none, or no place.
inline Arrive(w) {
  woken[w] = false;
  EndClaim(w);
  outcome = NOTHING;
  if
  :: closed -> Unqueue(w); waiting--; outcome = CLOSED
  :: !closed && packets > 0 && running < CONCURRENCY ->
     OffLoops(w);
     Unqueue(w);
     waiting--;
     MayRun();
     TakePlace(w);
     Pop();
     Deliver(j);
     outcome = GOT
  :: else  // still armed, at its place
  fi
}

// Withdraw of a loop, aborted or ending. What it was woken for is somebody else's now, so Release or Detach follows.
inline Disarm(w) {
  OffLoops(w);
  Unqueue(w);
  waiting--;
#ifdef MUTANT_KEEPS_CLAIM
  claimed[w] = false; aged[w] = false;
#else
  EndClaim(w);
#endif
  woken[w] = false
}

// ---- places given up outside of a get ----------------------------------------------------------------------------------------------
// The job of a loop that got a packet is over; a thread is.
inline Leave(w, me) {
  GivePlaceUp(w);
  Release(me)
}

inline BeginBlocking(w, me) {
  fn = (place[w] == NONE -> 1 : 2);
#ifdef MUTANT_COUNTS_BLOCKED
  counts[w] = false
#else
  GivePlaceUp(w);
  Release(me)
#endif
}

// Above the limit if need be. A get inside fn may have taken a place already, and a thread has one at most.
inline EndBlocking(w) {
  if
  :: fn == 2 && !closed ->
#ifdef READING_BLOCKING_ADDS
     place[w] = NONE;
#endif
     TakePlace(w)
  :: else
  fi;
  fn = 0
}

// Every 10 ms, while packets wait, and once after packets were given out while a place is lent: its thread may run again. Threads in a
// get are not looked at. A claim is void at the second tick; its loop isn't woken again, for the wake is still on its way.
inline Tick(me) {
  sum = 0; i = 0;
  do
  :: i < WAITERS -> if :: place[i] == LENT -> sum++ :: else fi; i++
  :: else -> break
  od;
#ifdef READING_FORGETS_LENT
  sum = (packets > 0);
#else
  sum = (packets > 0 || (sum > 0 && given));
#endif
#ifdef READING_WATCHES_WAITERS
  Count();
  sum = (sum && candidates > 0);
#endif
  given = false;
  i = 0;
  do
  :: i < WAITERS && sum ->
#ifndef MUTANT_TRUSTS_CLAIMS
     if
     :: claimed[i] && aged[i] -> EndClaim(i)
     :: claimed[i] && !aged[i] -> aged[i] = true
     :: else
     fi;
#endif
     if
     :: place[i] == HELD && asleep[i] && seen[i] -> RULE(places_kept, running > 0); running--; place[i] = LENT; counts[i] = false
     :: place[i] == HELD && asleep[i] && !seen[i] -> seen[i] = true
     :: place[i] == LENT && !asleep[i] -> TakePlace(i)
     :: else
     fi;
     i++
  :: i < WAITERS && !sum -> seen[i] = false; i++  // two samples in a row, or none
  :: else -> break
  od;
  i = 0;
  do
  :: i < WAITERS -> if :: beyond[i] -> beyond[i] = 2 :: else fi; i++
  :: else -> break
  od;
  Release(me)
}

// ---- ends --------------------------------------------------------------------------------------------------------------------------
// Ends every wait and drops the FIFO. Who was handed a packet and hasn't come yet is still in its get, which ends as the others do: no
// packet is delivered after a close.
inline CloseAll(me) {
  closed = true;
#ifdef MUTANT_CLOSES_THREADS_ONLY
  armed = 0;
#endif
  do
  :: depth > 0 -> depth--; n = stack[depth]; stack[depth] = 0; Signal(n, me)
  :: depth == 0 && armed > 0 ->
     armed--; n = loops[armed]; loops[armed] = 0;
     if :: !woken[n] -> Signal(n, me) :: else fi
  :: else -> break
  od;
  do
  :: packets > 0 -> packets--; fifo[packets] = 0
  :: else -> break
  od;
  // Nothing of the following is looked at any more.
  running = 0; claims = 0; given = false; i = 0;
  do
  :: i < WAITERS ->
     place[i] = NONE; counts[i] = false; beyond[i] = 0;
     claimed[i] = false; aged[i] = false; woken[i] = false; seen[i] = false;
     i++
  :: else -> break
  od
}

// The last one closes.
inline Detach(w, me) {
  left[w] = true;
  attached--;
  if
  :: attached == 0 && !closed -> CloseAll(me)
  :: else -> Leave(w, me)
  fi
}
