// What the model of the packet queue must not do, and the bookkeeping that this is judged by. The algorithm (waiters.pml) reads none of
// it: a mutant that miscounts is measured against the truth here, not against its own counters. Included by packet_queue.pml.

byte entered;          // packets posted
byte delivered;
byte gone;             // which ones, by bits
byte waiting;          // threads and loops in a get
bool queued[WAITERS];  // in a get, and given nothing yet
byte newer[WAITERS];   // how many of its kind began to wait later
byte coming[WAITERS];  // signals on their way to it
bool counts[WAITERS];  // it runs on the port, as invariant 6 has it
byte beyond[WAITERS];  // it resumed uncounted, and packets were given out beyond the limit: 1 since the last tick, 2 before that
bool left[WAITERS];    // detached, or its thread is gone
byte hung;             // those that never come back: a loop in a foreign job, a thread asleep or in blocking(fn) for ever

// The properties that are assertions; pan names the variable. The table in README.md says what each means.
hidden byte delivered_once, fifo_order, lifo_order, limit_kept, no_lost_wakeup, free_thread_released, no_lost_signal, places_kept,
    above_for_a_moment, record_alive;
// Scratch, within one d_step.
hidden byte i, j, k, n, sum, unblocked, owed, candidates, blocked;

#define RULE(name, condition) name = (condition); assert(name)

inline Count() {
  unblocked = 0; owed = 0; candidates = 0; blocked = 0; i = 0;
  do
  :: i < WAITERS ->
     if :: counts[i] -> unblocked++ :: else fi;
     if :: claimed[i] -> owed++ :: else fi;
     if :: queued[i] && !woken[i] -> candidates++ :: else fi;
     if :: queued[i] && !woken[i] && !IS_LOOP(i) -> blocked++ :: else fi;
     i++
  :: else -> break
  od
}

// Whenever the mutex is free.
inline Unlock() {
  i = 0; sum = packets + delivered;
  do
  :: i < WAITERS -> if :: handed[i] -> sum++ :: else fi; i++
  :: else -> break
  od;
  RULE(delivered_once, closed || sum == entered);
  i = 1;
  do
  :: i < packets -> RULE(fifo_order, fifo[i - 1] < fifo[i]); i++
  :: else -> break
  od;
  Count();
  RULE(no_lost_wakeup, closed || !(packets > owed && unblocked + owed < CONCURRENCY && candidates > 0));
  RULE(free_thread_released, closed || !(packets > 0 && unblocked < CONCURRENCY && blocked > 0))
}

// A packet is about to be given to a thread. One that resumed uncounted may exceed the limit until the next tick.
inline MayRun() {
  Count();
  RULE(limit_kept, unblocked < CONCURRENCY);
#if SLEEPS
  i = 0;
  do
  :: i < WAITERS ->
     if
     :: place[i] == LENT && !asleep[i] && unblocked + 1 >= CONCURRENCY -> RULE(above_for_a_moment, beyond[i] < 2); beyond[i] = 1
     :: else
     fi;
     i++
  :: else -> break
  od
#endif
}

// w is about to be released: nobody of its kind began to wait later.
inline IsNewest(w) {
  i = 0;
  do
  :: i < WAITERS ->
     RULE(lifo_order, !(queued[i] && !(IS_LOOP(i) && woken[i]) && IS_LOOP(i) == IS_LOOP(w) && newer[i] < newer[w]));
     i++
  :: else -> break
  od
}

inline Deliver(p) {
  RULE(delivered_once, !closed && !(gone & BIT(p)));
  gone = gone | BIT(p);
  delivered++
}

inline Queue(w) {
  i = 0;
  do
  :: i < WAITERS -> if :: queued[i] && IS_LOOP(i) == IS_LOOP(w) -> newer[i]++ :: else fi; i++
  :: else -> break
  od;
  queued[w] = true; newer[w] = 0; waiting++
}

inline Unqueue(w) {
  i = 0;
  do
  :: i < WAITERS ->
     if :: queued[w] && queued[i] && IS_LOOP(i) == IS_LOOP(w) && newer[i] > newer[w] -> newer[i]-- :: else fi;
     i++
  :: else -> break
  od;
  queued[w] = false; newer[w] = 0
}

#ifdef EACH_DELIVERED
// There are finitely many posts, so this says that each of them is delivered.
ltl each_delivered { []<> (closed || delivered == entered || attached == hung) }
#endif
#ifdef CLOSE_ENDS
ltl close_ends { []<> (!closed || waiting == 0) }
#endif
