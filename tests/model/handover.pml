/*
 * Leader and followers: how one thread at a time runs the machine, one syncs
 * the log, one reads what participants answer, and none is kept for any of it.
 * The question is whether a wake-up can be lost: every event that was brought
 * is stepped, every caller gets its reply, whatever the order of the threads.
 * It refuses to know the protocol (protocol.pml does) and time: no timer ever
 * rescues a thread here. docs/architecture.md, "One thread at a time".
 *
 * Each process stands for one source; the rest is named where it begins:
 *   Caller   coordinator/coordinator_service.cc, a thread that brings a commit
 *            and waits in Crew::Await, coordinator/crew.cc
 *   Keeper   Crew::KeeperLoop, the thread of last resort
 *   Peer     participant/participant_service.cc, as far as it answers
 *
 * A step is what nobody can see the middle of. A critical section that looks
 * at one thing its mutex does not guard (`forced`, say) is one step; one that
 * looks at two is two, and the mutex is held between them. A condition
 * variable is a flag that only a notify raises: a wait that nobody notifies
 * sleeps for ever. No run is endless (a search without fairness would show a
 * cycle), so the property needs no fairness: threads that can move, move.
 *
 * Configuration: CALLERS (2; 3 was never searched to its end). NO_FINISH:
 * nothing follows the reply. EAGER: a thread about to block in the sync first
 * hands the reading of answers to a caller that sleeps. STALL: a caller's sync
 * may take for ever; answers are read all the same. BROKEN_... takes out one
 * rule.
 */

#ifndef CALLERS
#define CALLERS 2
#endif
#define KEEPER CALLERS
#define everyone ((1 << CALLERS) - 1)
#define bit_of(i) (1 << (i))

/* ---- coordinator/coordinator.cc: the machine, its queue of events. A kind of
 * event is a set of callers: those whose transaction it is about. */
byte asked, voted, durable, finished;        /* waiting_, guarded by mutex_ */
byte r_asked, r_voted, r_durable, r_finished; /* round_, the runner's own    */
bool running;                                /* guarded by mutex_           */
byte stepping;                               /* threads inside the machine  */
bool forced;                                 /* an atomic                   */
byte ended;                                  /* transactions all done       */
#define queue_empty (asked == 0 && voted == 0 && durable == 0 && finished == 0)

/* ---- recovery/wal.cc behind coordinator/file_decision_log.cc. */
byte appended;
byte syncing;

/* ---- coordinator/thrift_channel.cc: two lines to a participant, at most one
 * unanswered call on each; what queues up meanwhile shares the next. */
bool channel_held;                           /* its mutex_                  */
byte prepares, finishes;                     /* queued                      */
byte prepare_call, finish_call;              /* under way; 0: line is free  */
bool prepare_answered, finish_answered;
bool interrupt;                              /* the eventfd                 */
byte polling_threads;
#define outstanding (prepare_call != 0 || finish_call != 0)
#define readable (prepare_answered || finish_answered || interrupt)

/* ---- coordinator/crew.cc. */
bool crew_held;                              /* its mutex_                  */
bool flushing, polling;
byte poller;
bool done[CALLERS], promoted[CALLERS];
byte asleep;                                 /* waiting_                    */
bool woken[CALLERS];                         /* Call::woken_                */
bool keeper_wanted, keeper_woken;
byte returned;

#define flush_open (!flushing && forced)
#define poll_open (!polling && (asleep != 0 || outstanding))
#define last (CALLERS - 1)
#define on_its_way (promoted[0] || promoted[1] || promoted[last])

inline Push() {
  if
  :: prepare_call == 0 -> prepare_call = prepares; prepares = 0
  :: else
  fi;
  if
  :: finish_call == 0 -> finish_call = finishes; finishes = 0
  :: else
  fi
}

/* Crew::Reply, for each caller of a set; runs inside the machine. */
inline Reply(callers) {
  do
  :: d_step { !crew_held && callers != 0 ->
       one = ((callers & 1) -> 0 : ((callers & 2) -> 1 : 2));
       callers = callers & ~bit_of(one);
       assert(!done[one]);
       done[one] = true;
       if
       :: asleep & bit_of(one) -> woken[one] = true
#ifndef BROKEN_NO_INTERRUPT    /* its thread reads answers of others */
       :: !(asleep & bit_of(one)) && polling && poller == one -> interrupt = true
#endif
       :: else
       fi;
       one = 0 }
  :: callers == 0 -> break
  od
}

/* Coordinator::StepAll: each event, then what is to be sent. */
inline StepAll() {
  d_step {
    stepping++;
    assert(stepping == 1);
    prepares = prepares | r_asked;
#ifdef NO_FINISH
    ended = ended | r_durable;
#else
    finishes = finishes | r_durable;
    ended = ended | r_finished;
#endif
    appended = appended | r_voted;
    r_asked = 0; r_finished = 0
  };
  d_step { forced = (r_voted != 0 -> true : forced); r_voted = 0 };
  Reply(r_durable);
  atomic { !channel_held -> Push(); stepping-- }
}

/* Coordinator::Submit and Coordinator::Run, for the events a, v, d and f. */
#define Bring() asked = asked | a; voted = voted | v; \
                durable = durable | d; finished = finished | f; \
                a = 0; v = 0; d = 0; f = 0
inline Submit() {
#ifdef BROKEN_RUNNER   /* looked at outside the mutex */
  lead = !running;
  d_step { Bring(); running = (lead -> true : running) };
#else
  d_step { Bring(); lead = !running; running = true };
#endif
  do
  :: !lead -> break
  :: d_step { lead && !queue_empty ->
       r_asked = asked; r_voted = voted; r_durable = durable; r_finished = finished;
       asked = 0; voted = 0; durable = 0; finished = 0 };
     StepAll()
#ifdef BROKEN_EMPTY    /* emptiness is looked at outside the mutex */
  :: lead && queue_empty -> d_step { running = false; lead = false }
#else
  :: d_step { lead && queue_empty -> running = false; lead = false }
#endif
  od
}

/* Coordinator::FlushLog. */
inline FlushLog(may_stall) {
#ifdef BROKEN_FORCED   /* the request is taken back after the records */
  d_step { syncing++; assert(syncing == 1); d = appended; appended = 0 };
  forced = false;
#else
  d_step { syncing++; assert(syncing == 1); forced = false };
  d_step { d = appended; appended = 0 };
#endif
#ifdef STALL
  if
  :: may_stall -> false  /* this sync never ends */
  :: true
  fi;
#endif
  syncing--;
  if
  :: d != 0 -> Submit()
  :: else
  fi
}

/* ThriftChannel::Poll. The answers are brought when its mutex is free again:
 * the machine, which this thread may have to run, takes it. */
inline Poll() {
  atomic { readable && !channel_held ->
    polling_threads++;
    assert(polling_threads == 1);
    interrupt = false;
    if
    :: prepare_answered -> v = prepare_call; prepare_call = 0; prepare_answered = false
    :: else
    fi;
    if
    :: finish_answered -> f = finish_call; finish_call = 0; finish_answered = false
    :: else
    fi;
    Push();
#ifdef BROKEN_HELD     /* ... or while it is held */
    channel_held = true;
#endif
    polling_threads-- };
  if
  :: v != 0 || f != 0 -> Submit()
  :: else
  fi;
#ifdef BROKEN_HELD
  channel_held = false
#endif
}

/* The end of Crew::Promote: somebody is to take a duty. */
inline Hand() {
  if
  :: on_its_way
  :: !on_its_way && (asleep & 1) -> promoted[0] = true; woken[0] = true
  :: !on_its_way && (asleep & 2) -> promoted[1] = true; woken[1] = true
#if CALLERS > 2
  :: !on_its_way && (asleep & 4) -> promoted[last] = true; woken[last] = true
#endif
  :: !on_its_way && asleep == 0 -> keeper_wanted = true; keeper_woken = true
  fi
}

/* Crew::Promote; the crew's mutex is held. */
inline Promote() {
#ifndef BROKEN_PROMOTE /* who leaves hands nothing over */
  if
  :: atomic { flush_open -> Hand() }
  :: atomic { else -> skip };
     if
     :: atomic { poll_open -> Hand() }
     :: atomic { else -> skip }
     fi
  fi
#else
  skip
#endif
}

mtype:kind = { nothing, flush, poll, rest, leave };

/* What a duty ends with, under the crew's mutex. */
inline GiveBack() {
  if
  :: duty == flush -> flushing = false
  :: duty == poll -> polling = false; poller = 0
  :: else
  fi;
  duty = nothing
}

/* coordinator/crew.cc, Await and WorkOnce: from one letting go of the mutex to
 * the next. */
proctype Caller(byte me) {
  byte a, v, d, f, one;
  bool lead;
  mtype:kind duty = nothing;
  a = bit_of(me);
  Submit();
  do
  :: d_step { !crew_held && (duty != rest || woken[me]) ->
       if
       :: duty == rest ->
            assert(done[me] || promoted[me]);
            asleep = asleep & ~bit_of(me);
            promoted[me] = false; woken[me] = false
       :: else
       fi;
       GiveBack();
       if
       :: done[me] -> duty = leave; crew_held = true
       :: !done[me] && flush_open -> duty = flush; flushing = true;
#ifdef EAGER
            crew_held = true
#endif
       :: !done[me] && !flush_open && !polling -> duty = poll; polling = true; poller = me
       :: else ->
            duty = rest;
#ifndef BROKEN_SLEEP
            asleep = asleep | bit_of(me)
#endif
       fi };
#ifdef BROKEN_SLEEP    /* the mutex is let go between the look and the sleep */
     if
     :: d_step { duty == rest && !crew_held -> asleep = asleep | bit_of(me) }
     :: duty != rest
     fi;
#endif
     if
     :: duty == flush ->
#ifdef EAGER
          Promote();
          crew_held = false;
#endif
          FlushLog(true)
     :: duty == poll -> Poll()
     :: duty == rest
     :: duty == leave -> break
     fi
  od;
  Promote();
  d_step { returned = returned | bit_of(me); crew_held = false }
}

/* coordinator/crew.cc, KeeperLoop: works only while no caller sleeps. */
proctype Keeper() {
  byte a, v, d, f, one;
  bool lead;
  mtype:kind duty = nothing;
  do
  :: d_step { !crew_held && (duty != rest || keeper_woken) ->
       if
       :: duty == rest -> keeper_woken = false; keeper_wanted = false
       :: else
       fi;
       GiveBack();
       if
       :: asleep == 0 && flush_open -> duty = flush; flushing = true
       :: else -> crew_held = true
       fi };
     if
     :: duty == flush -> FlushLog(false)
     :: else ->
          if
          :: d_step { asleep == 0 && !polling && outstanding ->
               duty = poll; polling = true; poller = KEEPER; crew_held = false };
             Poll()
          :: atomic { else -> skip };
             Promote();
             d_step {
               if
               :: keeper_wanted -> keeper_wanted = false
               :: else -> duty = rest
               fi;
               crew_held = false }
          fi
     fi
  od
}

/* Answers each call some time. */
proctype Peer() {
  do
  :: d_step { prepare_call != 0 && !prepare_answered -> prepare_answered = true }
  :: d_step { finish_call != 0 && !finish_answered -> finish_answered = true }
  od
}

init {
  atomic {
    run Peer();
    run Keeper();
    run Caller(0);
    run Caller(1);
#if CALLERS > 2
    run Caller(2)
#endif
  }
}

#ifdef STALL
ltl answers_are_read { <> [] (!prepare_answered && !finish_answered) }
#else
ltl every_event { <> [] (returned == everyone && ended == everyone && queue_empty &&
                         !running && appended == 0) }
#endif
