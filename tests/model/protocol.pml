/*
 * The commit protocol, one transaction with a branch at each of two
 * participants: presumed abort, early prepare (the client carries votes),
 * leases, epochs, binding aborts, inquiries, end records and retention.
 * It refuses to know SQL, bytes on disk, certificates and real time; a clock
 * that runs out is an event that may happen at any moment.
 * docs/protocol.md states the laws (L1 ...) that are asserted here;
 * tests/model/README.md says how to read and run the model.
 *
 * Each process stands for one source:
 *   Client        client/transaction.cc
 *   Participant   participant/branch_table.cc (over participant/postgres.cc)
 *   Recovery      participant/sweep.cc, which asks for what is in doubt
 *   Machine       coordinator/commit_protocol.cc, answers by recovery/in_doubt.cc
 *   Channel       coordinator/thrift_channel.cc
 *   Monitor       coordinator/coordinator.cc, the part that feeds "durable"
 *   Log           recovery/wal.cc
 *   Time          common/clock.cc
 *   Faults        crash and restart; opening is recovery/recovered_state.cc
 *
 * The network is a set: what was sent may be delivered at any later time, any
 * number of times, in any order, or never. So loss, duplication and
 * reordering are unbounded, and a process that is down is one that is slow;
 * a crash and the restart after it are therefore one step. What a deadlock of
 * this set could hide, a message that must be sent again, is for the liveness
 * runs: -DLIVENESS adds `calm`, the moment when faults stop, and at that
 * moment any part of the set may vanish.
 *
 * Configuration: COORDINATOR_CRASHES, PARTICIPANT_CRASHES (each), LIVENESS,
 * FAULTLESS (L3: nothing fails and no deadline passes), NO_DUPLICATES (of
 * work), MIXED (one branch prepares early, the other does not).
 * BROKEN_... takes out one rule; HARM leaves only those assertions that look
 * from outside (L1, L9a, L10, L13d), and ONLY_L1 of those only L1, so that a
 * broken variant has to show damage and cannot be caught by the check of the
 * very rule it lacks.
 */

#ifndef COORDINATOR_CRASHES
#define COORDINATOR_CRASHES 1
#endif
#ifndef PARTICIPANT_CRASHES
#define PARTICIPANT_CRASHES 1
#endif

#ifdef FAULTLESS
#define may_fail false
#else
#define may_fail true
#endif

/* ---- Durable at the participants: what PostgreSQL knows, by xid. A second
 * xid can appear under the same GID: the first is gone, the branch table was
 * lost in a crash, and a late duplicate of the work arrives. */
mtype:branch = { nothing, working, prepared, committed, aborted, was_read };
mtype:branch branch[4] = nothing;
#define B(p, x) branch[(p) * 2 + (x) - 1]
#define holds(p, what) (B(p, 1) == what || B(p, 2) == what)

/* ---- Durable at the coordinator. `handed` is with the log but not synced;
 * `cached` exists only in BROKEN_OPENING: read back from the page cache and
 * never made durable. `bit` and `line` are L9a's later lives of a record. */
mtype:record = { none, handed, cached, durable, bit_kept, below_line };
mtype:record record = none;
byte record_xid[2];
byte epoch = 1;
mtype:end = { no_end, end_appended, end_durable };
mtype:end end_record = no_end;

#define is_durable (record == durable || record == bit_kept || record == below_line)

/* ---- Volatile at the coordinator: what it knows of the one id's sequence. */
mtype:sequence = { unheard, in_flight, committing, decided, dead };
mtype:sequence sequence = unheard;
byte id_epoch;         /* part of the id; 0 until it is leased              */
bool lease_live;
byte vote[2];          /* an xid, or: */
#define read_only 3
bool acked[2];

/* ---- Volatile at the participants and the client. */
/* A branch is plain, or prepares with its last work, or reads only. */
mtype:flow = { plain, early, reading };
mtype:flow flow[2] = plain;
bool ended[2];         /* the branch table remembers that the id has ended  */
bool in_table[2];      /* a live branch of this instance, its mark is known */
byte got[2];           /* the client's mark or vote, named by its xid       */
bool client_gone;

/* ---- The network; a set of xids is a bit mask. */
byte net_reply[2];     /* participant to client: mark, or with early the vote */
bool net_commit;       /* client to coordinator; carries flow[] and got[]     */
bool net_abort;        /* client (or an operator) to coordinator              */
bool net_prepare[2];
byte net_vote[2];
bool net_refused[2];
byte net_finish[2];    /* finish(commit, xid); 0 is none                      */
bool net_cancel[2];    /* finish(abort)                                       */
bool net_ack[2];
byte net_yes[2];       /* answers to inquiries: commit, abort for these xids  */
byte net_no[2];
#define one(x) (1 << ((x) - 1))

/* ---- Faults left. */
byte coordinator_crashes = COORDINATOR_CRASHES;
byte participant_crashes[2] = PARTICIPANT_CRASHES;
#ifdef LIVENESS
bool calm;             /* from here on nothing fails                        */
bool lost;             /* participant 1 never comes back                    */
#define ANY_ORDER true
#else
#define ANY_ORDER false
#define calm false
#define lost false
#endif

/* ---- What the outside world was told, kept by the checker alone. */
bool told_commit;
bool told_abort;
bool told_read_only;
#ifdef LIVENESS        /* safety is searched without it */
#define told(what) skip
#else
#define told(what) what = true
#endif
bool expired_heard[2];

/* ---- The laws. The names are variables so that a failing run prints them. */
hidden byte L1, L2, L4, L5, L6, L7a, L9a, L10, L11, L13d;
#define seen(name, truth) name = (truth); assert(name)
#ifdef HARM
#define law(name, truth) skip
#else
#define law(name, truth) seen(name, truth)
#endif

#define standing(p) (flow[p] == reading || holds(p, prepared) || holds(p, committed))
#define together(p, q) (!holds(p, committed) || standing(q))
inline CheckOutside() {
  seen(L1, together(0, 1) && together(1, 0))
#ifndef ONLY_L1
  ;
  seen(L13d, !(B(0, 1) == committed && B(0, 2) == committed) &&
             !(B(1, 1) == committed && B(1, 2) == committed));
  seen(L10, !(told_commit && (told_abort || told_read_only)) &&
            !(told_abort && (holds(0, committed) || holds(1, committed))) &&
            (!told_commit || (standing(0) && standing(1))))
#endif
}

inline TellCommit() {
  law(L5, is_durable);
  told(told_commit);
  CheckOutside()
}

inline TellAbort() {
  law(L4, record == none && sequence != committing && sequence != decided);
  told(told_abort);
  CheckOutside()
}

/* ---- The one function of L6 (recovery/in_doubt.cc), as its three answers. */
#define lease_open (lease_live && id_epoch == epoch)
#define is_commit (sequence == decided && record != bit_kept && record != below_line)
#ifdef BROKEN_ABSENCE  /* absence answers abort while the id is in flight */
#define is_abort (record == none && (sequence != committing && sequence != decided))
#else
#ifdef BROKEN_LINE     /* the line of `expired` is not looked at */
#define is_abort ((record == none || record == below_line) && \
                  (sequence == dead || (sequence == unheard && !lease_open)))
#else
#define is_abort (record == none && \
                  (sequence == dead || (sequence == unheard && !lease_open)))
#endif
#endif

/* L7a, L11 and the end of a lease meet here: may this commit be heard? */
#ifdef BROKEN_EPOCH    /* an id of an ended epoch looks like a new one */
#define may_hear (record == none && sequence == unheard && \
                  (lease_open || id_epoch != epoch))
#else
#ifdef BROKEN_LEASE    /* the end of the lease is not looked at */
#define may_hear (record == none && sequence == unheard && id_epoch == epoch)
#else
#define may_hear (record == none && sequence == unheard && lease_open)
#endif
#endif

inline Abort() {
  law(L4, sequence == unheard || sequence == in_flight);
#ifdef BROKEN_L11      /* the abort is forgotten once its finishes are out */
  sequence = unheard;
#else
  sequence = dead;
#endif
  vote[0] = 0; vote[1] = 0;
  net_cancel[0] = true; net_cancel[1] = true;
  TellAbort()
}

/* From here on the machine can tell of the commit. */
inline Decide() {
  sequence = decided;
  acked[0] = (record_xid[0] == 0);
  acked[1] = (record_xid[1] == 0);
  TellCommit()
}

#define true_vote(p) (vote[p] == read_only -> \
    (flow[p] == reading && B(p, got[p]) == was_read) : \
    (vote[p] == got[p] && B(p, vote[p]) == prepared))
#define recorded(v) (v == read_only -> 0 : v)

inline HandOver() {
  law(L7a, epoch == id_epoch);
  law(L11, !told_abort);
  law(L4, sequence != dead && sequence != decided && record == none);
  law(L2, true_vote(0) && true_vote(1));
  record = handed;
  record_xid[0] = recorded(vote[0]); record_xid[1] = recorded(vote[1]);
  vote[0] = 0; vote[1] = 0;
#ifdef BROKEN_REPLY    /* told before the record is durable */
  Decide()
#else
  sequence = committing
#endif
}

/* All votes are in. Where all branches only read, nothing is decided. */
inline Conclude() {
  if
  :: vote[0] == read_only && vote[1] == read_only ->
       sequence = dead; vote[0] = 0; vote[1] = 0;
       told(told_read_only);
       CheckOutside()
  :: else -> HandOver()
  fi
}

/* client/transaction.cc. Takes an id, and sends work to both at once. It may
 * vanish, with what it holds, and another process then asks about the id. */
proctype Client() {
  do
  :: d_step { id_epoch == 0 -> id_epoch = epoch; lease_live = true }
  :: atomic { !client_gone && !net_commit && got[0] == 0 && net_reply[0] != 0 ->
       if
       :: net_reply[0] & one(1) -> got[0] = 1
       :: net_reply[0] & one(2) -> got[0] = 2
       fi }
  :: atomic { !client_gone && !net_commit && got[1] == 0 && net_reply[1] != 0 ->
       if
       :: net_reply[1] & one(1) -> got[1] = 1
       :: net_reply[1] & one(2) -> got[1] = 2
       fi }
  :: d_step { !client_gone && !net_commit && got[0] != 0 && got[1] != 0 ->
       net_commit = true }
  :: d_step { may_fail && !client_gone && !net_abort && id_epoch != 0 -> net_abort = true }
  :: d_step { may_fail && !calm && !client_gone && !net_commit && id_epoch != 0 ->
       client_gone = true; got[0] = 0; got[1] = 0 }
#ifdef LIVENESS
  /* Nobody who has asked for a commit must also abort or ask again. */
  :: d_step { may_fail && !calm && !client_gone && net_commit -> client_gone = true }
#endif
#ifndef LIVENESS
  /* Asks for the outcome; pending and expired teach nothing. */
  :: d_step { (is_commit || record == bit_kept) && !told_commit -> TellCommit() }
  :: d_step { is_abort && !told_abort && id_epoch != 0 -> TellAbort() }
#endif
  od
}

#ifdef NO_DUPLICATES    /* of work: a second xid then never appears */
#define free_xid(p) (B(p, 1) == nothing)
#else
#define free_xid(p) (B(p, 1) == nothing || B(p, 2) == nothing)
#endif
#define live(p) (holds(p, working) || holds(p, prepared))

/* Ends branch x of p as an abort; the table then knows that it is over. */
inline RollBack(p, x) {
  B(p, x) = aborted;
  CheckOutside()
}

inline CommitPrepared(p, x) {
  B(p, x) = committed;
  CheckOutside()
}

hidden byte x;

/* participant/branch_table.cc: one thing at a time per id. */
proctype Participant(bit p) {
  do
  /* Work, perhaps a late duplicate: must find no branch and no ended id (the
   * table), and no prepared one (42710, GID in use). */
  :: d_step { id_epoch != 0 && !(p && lost) && !ended[p] && !live(p) && free_xid(p) ->
       x = (B(p, 1) == nothing -> 1 : 2);
       in_table[p] = true;
       B(p, x) = (flow[p] == early -> prepared : working);
       net_reply[p] = net_reply[p] | one(x) }
  /* Prepare names the mark. A crash after this and before the vote leaves: */
  /* a prepared branch, which Recovery asks about. */
  :: d_step { !(p && lost) && net_prepare[p] && got[p] != 0 && B(p, got[p]) == working ->
       if
       :: flow[p] == reading ->
            B(p, got[p]) = was_read;
            ended[p] = true; in_table[p] = false;
            net_vote[p] = net_vote[p] | one(read_only)
       :: else ->
            B(p, got[p]) = prepared;
            net_vote[p] = net_vote[p] | one(got[p])
       fi }
  /* Refused by PostgreSQL, or no such branch here: another mark, a restart. */
  :: d_step { may_fail && !(p && lost) && net_prepare[p] && !net_refused[p] &&
              sequence == in_flight && got[p] != 0 &&
              (B(p, got[p]) == working || !in_table[p]) ->
       net_refused[p] = true;
       if
       :: B(p, got[p]) == working -> RollBack(p, got[p]); ended[p] = true; in_table[p] = false
       :: else
       fi }
  /* Idle past its deadline. */
  :: d_step { may_fail && !(p && lost) && holds(p, working) ->
       x = (B(p, 1) == working -> 1 : 2);
       RollBack(p, x);
       ended[p] = true; in_table[p] = false }
  :: d_step { !(p && lost) && net_cancel[p] && (live(p) || !ended[p]) ->
       if
       :: live(p) ->
            x = ((B(p, 1) == working || B(p, 1) == prepared) -> 1 : 2);
            RollBack(p, x)
       :: else
       fi;
       ended[p] = true; in_table[p] = false }
  /* finish(commit, xid): what else sits under the GID never voted. */
  :: d_step { !(p && lost) && net_finish[p] != 0 &&
              (holds(p, prepared) || !net_ack[p] || !ended[p]) ->
       if
       :: holds(p, prepared) ->
            x = (B(p, 1) == prepared -> 1 : 2);
            if
#ifdef BROKEN_XID      /* the xid is not compared */
            :: true -> CommitPrepared(p, x)
#else
            :: x == net_finish[p] -> CommitPrepared(p, x)
            :: else -> RollBack(p, x)
#endif
            fi
       :: else
       fi;
       /* Evidence (L13c): acknowledged only when the recorded xid committed. */
       seen(L1, B(p, net_finish[p]) == committed);
       net_ack[p] = true;
       ended[p] = true; in_table[p] = false }
  /* An answer to Recovery, compared with the xid it was given for. */
  :: d_step { !(p && lost) && holds(p, prepared) &&
              (net_yes[p] & one((B(p, 1) == prepared -> 1 : 2))) ->
       x = (B(p, 1) == prepared -> 1 : 2);
       CommitPrepared(p, x);
       ended[p] = true; in_table[p] = false }
  :: d_step { !(p && lost) && holds(p, prepared) &&
              (net_no[p] & one((B(p, 1) == prepared -> 1 : 2))) ->
       x = (B(p, 1) == prepared -> 1 : 2);
       RollBack(p, x);
       ended[p] = true; in_table[p] = false }
  od
}

/* The part of a participant that asks, and the coordinator's answer. A request
 * that is slow is one sent later, so only the answer travels. Whatever was
 * ever prepared may ask: a late request is covered too. */
#ifdef BROKEN_NO_ASK   /* nobody asks; a finish that was lost stays lost */
#define asks(p) false
#else
#define asks(p) (!((p) && lost) && holds(p, prepared))
#endif
#define asking(p) (B(p, 1) == prepared -> 1 : 2)

proctype Recovery(bit p) {
  do
  :: d_step { asks(p) && is_commit && asking(p) == record_xid[p] &&
              !(net_yes[p] & one(asking(p))) ->
       law(L5, is_durable);
       net_yes[p] = net_yes[p] | one(asking(p)) }
  /* The whole record names another xid (L9b). */
  :: d_step { asks(p) && is_commit && asking(p) != record_xid[p] &&
              !(net_no[p] & one(asking(p))) ->
       net_no[p] = net_no[p] | one(asking(p)) }
  :: d_step { asks(p) && is_abort &&
#ifdef BROKEN_PRESUMED_COMMIT  /* "not found" taken for committed */
              sequence == dead &&
#endif
              !(net_no[p] & one(asking(p))) ->
       law(L6, sequence == dead ||
               (sequence == unheard && record == none &&
                (epoch > id_epoch || !lease_live)));
       TellAbort();
       net_no[p] = net_no[p] | one(asking(p)) }
#ifdef BROKEN_PRESUMED_COMMIT
  :: d_step { asks(p) && is_abort && sequence == unheard ->
       net_yes[p] = net_yes[p] | one(asking(p)) }
#endif
  :: d_step { asks(p) && (record == bit_kept || record == below_line) &&
              !expired_heard[p] ->
       seen(L9a, asking(p) != record_xid[p]);
       expired_heard[p] = true }
#ifdef LIVENESS
  /* Pending: asks again, for ever if need be. Only fairness ends this. */
  :: d_step { asks(p) && !is_commit && !is_abort && record != bit_kept &&
              record != below_line -> skip }
#endif
  od
}

/* coordinator/commit_protocol.cc: the calls of clients and operators. The
 * first commit binds the list; a second of the same id finds it heard. */
proctype Machine() {
  do
  :: d_step { net_commit && may_hear ->
       vote[0] = (flow[0] == early -> got[0] : 0);
       vote[1] = (flow[1] == early -> got[1] : 0);
       if
       :: vote[0] != 0 && vote[1] != 0 -> Conclude()
       :: else ->
            sequence = in_flight;
            net_prepare[0] = (flow[0] != early);
            net_prepare[1] = (flow[1] != early)
       fi }
  /* The client's abort, or an operator's: binds also while unheard. */
  :: d_step { net_abort && (sequence == in_flight || may_hear) -> Abort() }
  od
}

/* coordinator/participant_channel.cc: votes and acknowledgements in,
 * finishes out, again and again until acknowledged. */
proctype Channel(bit p) {
  do
  :: d_step { sequence == in_flight && vote[p] == 0 && net_vote[p] != 0 ->
       if
       :: net_vote[p] & one(read_only) -> vote[p] = read_only
       :: else -> vote[p] = ((net_vote[p] & one(1)) -> 1 : 2)
       fi;
       if
       :: vote[0] != 0 && vote[1] != 0 -> Conclude()
#ifdef BROKEN_VOTES    /* the first vote is taken for all */
       :: else -> vote[1 - p] = got[1 - p]; HandOver()
#else
       :: else
#endif
       fi }
  :: d_step { sequence == in_flight && vote[p] == 0 && net_refused[p] -> Abort() }
  :: d_step { sequence == decided && !acked[p] && net_finish[p] == 0 ->
       law(L5, is_durable);
       net_finish[p] = record_xid[p] }
  :: d_step { sequence == decided && !acked[p] && net_ack[p] ->
       acked[p] = true;
       if
#ifdef BROKEN_END      /* END before the last acknowledgement */
       :: true ->
#else
       :: acked[0] && acked[1] ->
#endif
            acked[0] = true; acked[1] = true;
            end_record = end_appended
#ifndef BROKEN_END
       :: else
#endif
       fi }
  od
}

/* recovery/wal.cc: the sync. */
proctype Log() {
  do
  :: d_step { record == handed -> record = durable }
  /* Compaction (L9a): acknowledged by all, lease over, retention passed. */
  :: d_step { record == durable && sequence == decided && end_record != no_end &&
              !lease_open ->
       record = bit_kept; sequence = unheard }
  :: d_step { record == bit_kept -> record = below_line }
  od
}

/* coordinator/coordinator.cc: feeds "durable" to the machine, which from then
 * on has actions that tell of the commit (L5). */
proctype Monitor() {
  do
  :: d_step { sequence == committing && record == durable ->
       Decide() }
#ifdef BROKEN_REPLY
  :: d_step { sequence == decided && record == handed -> record = durable }
#endif
  od
}

/* common/clock.cc: whatever runs out, runs out at any moment. */
proctype Time() {
  do
#ifndef BROKEN_ENDLESS_LEASE  /* a lease that lasts as long as its epoch */
  :: d_step { may_fail && lease_live -> lease_live = false;
       /* One watermark, no tombstones: what is not in flight is forgotten. */
       if
       :: sequence == dead -> sequence = unheard
       :: else
       fi }
#endif
#ifdef BROKEN_HASTE    /* a deadline passes where none should */
  :: d_step { sequence == in_flight -> Abort() }
#endif
  :: d_step { may_fail &&
              (sequence == in_flight
#ifdef BROKEN_DEADLINE /* a deadline aborts what was handed to the log */
               || sequence == committing
#endif
              ) -> Abort() }
  od
}

#ifdef LIVENESS
/* Of what was sent before, each message that can still do something may be
 * lost. (One that can't is dropped, which merges states.) What is sent from
 * here on arrives. */
inline MayLose(message, matters) {
  if
  :: message = 0
  :: message != 0 && (matters)
  fi
}

inline Calm(p) {
  MayLose(net_prepare[p], sequence == in_flight);
  MayLose(net_vote[p], sequence == in_flight);
  MayLose(net_refused[p], sequence == in_flight);
  MayLose(net_finish[p], sequence == decided && !acked[p]);
  MayLose(net_ack[p], sequence == decided && !acked[p]);
  MayLose(net_cancel[p], live(p) || !ended[p]);
  MayLose(net_yes[p], holds(p, prepared) && (net_yes[p] & one(asking(p))));
  MayLose(net_no[p], holds(p, prepared) && (net_no[p] & one(asking(p))));
  participant_crashes[p] = 0
}
#endif

proctype Faults() {
  do
  /* A crash of the coordinator and its opening. A record that was handed over
   * is there or is not; what is read is made durable before anything is let
   * out (L15). The epoch that begins ends every lease. */
  :: atomic { !calm && coordinator_crashes > 0 ->
       coordinator_crashes--;
       if
       :: record == handed || record == cached ->
            record = none; record_xid[0] = 0; record_xid[1] = 0
#ifdef BROKEN_OPENING  /* acts on what it read before it has rewritten it */
       :: record == handed -> record = cached
#else
       :: record == handed -> record = durable
#endif
       :: else
       fi;
       if
       :: end_record == end_appended -> end_record = no_end
       :: end_record == end_appended -> end_record = end_durable
       :: else
       fi;
       epoch++;
       lease_live = false;
       vote[0] = 0; vote[1] = 0;
       acked[0] = (end_record == end_durable || record_xid[0] == 0);
       acked[1] = (end_record == end_durable || record_xid[1] == 0);
       sequence = ((record == durable || record == cached) -> decided : unheard) }
  /* A crash of a participant or its PostgreSQL: what is prepared stays. */
  :: d_step { !calm && participant_crashes[0] > 0 ->
       participant_crashes[0]--; ended[0] = false; in_table[0] = false;
       if
       :: holds(0, working) -> x = (B(0, 1) == working -> 1 : 2); RollBack(0, x)
       :: else
       fi }
  :: d_step { !calm && participant_crashes[1] > 0 ->
       participant_crashes[1]--; ended[1] = false; in_table[1] = false;
       if
       :: holds(1, working) -> x = (B(1, 1) == working -> 1 : 2); RollBack(1, x)
       :: else
       fi }
#ifdef LIVENESS
  :: atomic { !calm ->
       calm = true;
       coordinator_crashes = 0;
       MayLose(net_commit, may_hear);
       MayLose(net_abort, may_hear || sequence == in_flight);
       Calm(0);
       Calm(1);
       if
       :: lost = true
       :: true
       fi }
  /* The world goes on: without this step a state in which nobody can move is
   * not a run in spin's weak fairness, and would pass unseen. */
  :: d_step { calm -> skip }
#endif
#ifdef FAULTLESS
  :: d_step { true -> skip }
#endif
  od
}

init {
  atomic {
#ifdef MIXED           /* a smaller configuration */
    if
    :: flow[0] = early; flow[1] = plain
    :: ANY_ORDER -> flow[0] = plain; flow[1] = early
    fi;
#else
    /* Participants are alike, so the order of the two flows does not matter,
     * except when participant 1 alone may be lost. */
    if
    :: flow[0] = plain
    :: flow[0] = early
    :: flow[0] = reading
    fi;
    if
    :: flow[1] = plain
    :: ANY_ORDER || flow[0] != plain -> flow[1] = early
    :: ANY_ORDER || flow[0] == reading -> flow[1] = reading
    fi;
#endif
    run Client();
    run Participant(0); run Participant(1);
    run Recovery(0); run Recovery(1);
    run Machine();
    run Channel(0); run Channel(1);
    run Log(); run Monitor(); run Time();
    run Faults()
  }
}

#ifdef LIVENESS
#define settled(p) (!holds(p, prepared) || expired_heard[p])
/* L8: faults stopped, so every prepared branch is settled and stays so; a
 * participant that never comes back delays only its own. */
ltl L8 { [] (calm -> <> [] (settled(0) && (lost || settled(1)))) }
#endif

#ifdef FAULTLESS
/* L3: it commits, everywhere, and the client is told so. */
#define applied(p) (flow[p] == reading || holds(p, committed))
ltl L3 { <> (applied(0) && applied(1) && (told_commit || told_read_only)) }
#endif
