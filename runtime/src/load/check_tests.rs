//! Every flaw is found, and only flaws are.

use super::*;

struct Bench {
    pair: PairCheck,
    flaws: Flaws,
}

impl Bench {
    fn sent(count: u64) -> Bench {
        let mut pair = PairCheck::new("a to b".into());
        for no in 0..count {
            assert_eq!(pair.sent(no * 10), no);
        }
        Bench { pair, flaws: Flaws::default() }
    }

    fn ack(&mut self, no: u64, seq: u64) -> Acked {
        self.ack_with(no, seq, ReasonCode::SUCCESS)
    }

    fn ack_with(&mut self, no: u64, seq: u64, reason: ReasonCode) -> Acked {
        let ack = SendAck { message_id: seq as i64 + 100, message_seq: seq, reason, ..SendAck::default() };
        self.pair.on_ack(no, &ack, &mut self.flaws)
    }

    fn recv(&mut self, no: u64, seq: u64) -> Delivered {
        self.recv_with(no, seq, Flags::RED_DOT, true)
    }

    fn recv_with(&mut self, no: u64, seq: u64, flags: Flags, intact: bool) -> Delivered {
        let recv = Recv { message_id: seq as i64 + 100, message_seq: seq, flags, ..Recv::default() };
        self.pair.on_recv(no, &recv, intact, &mut self.flaws)
    }

    fn kinds(mut self) -> Vec<&'static str> {
        self.pair.finish(&mut self.flaws);
        self.flaws.counts().keys().copied().collect()
    }
}

#[test]
fn a_clean_run_has_no_flaw() {
    let mut bench = Bench::sent(1000);
    for no in 0..1000 {
        // Delivery may overtake the ack.
        if no % 2 == 0 {
            assert_eq!(bench.recv(no, no + 5), Delivered::First { due: no * 10 });
        }
        assert_eq!(bench.ack(no, no + 5), Acked::Accepted { due: no * 10 });
        if no % 2 == 1 {
            assert_eq!(bench.recv(no, no + 5), Delivered::First { due: no * 10 });
        }
    }
    assert_eq!(bench.recv_with(999, 1004, Flags::DUP, true), Delivered::Retry);
    assert_eq!(bench.recv_with(3, 8, Flags::DUP, true), Delivered::Retry);
    assert_eq!((bench.pair.unacked(), bench.pair.undelivered(), bench.pair.accepted()), (0, 0, (1000, 0)));
    assert_eq!(bench.pair.count(), 1000);
    assert!(bench.pair.sent.len() <= 64);
    assert_eq!(bench.kinds(), [""; 0]);
}

#[test]
fn what_is_missing_at_the_end_is_lost() {
    let mut bench = Bench::sent(3);
    bench.ack(0, 1);
    bench.recv(0, 1);
    bench.ack(1, 2);
    assert_eq!((bench.pair.unacked(), bench.pair.undelivered()), (1, 2));
    assert_eq!(bench.kinds(), ["acked but not delivered", "no SENDACK"]);
}

#[test]
fn copies() {
    let mut bench = Bench::sent(2);
    bench.ack(0, 1);
    assert_eq!(bench.ack(0, 1), Acked::Flawed);
    bench.recv(0, 1);
    assert_eq!(bench.recv(0, 1), Delivered::Flawed);
    assert_eq!(bench.recv_with(0, 2, Flags::DUP, true), Delivered::Flawed);
    bench.ack(1, 3);
    bench.recv(1, 3);
    assert_eq!(bench.kinds(), ["delivered twice", "gap", "second SENDACK", "stored twice"]);
}

#[test]
fn a_copy_of_a_message_long_forgotten_is_found() {
    let mut bench = Bench::sent(200);
    for no in 0..200 {
        bench.ack(no, no + 1);
        bench.recv(no, no + 1);
    }
    assert_eq!(bench.recv(0, 1), Delivered::Flawed);
    assert_eq!(bench.ack(0, 1), Acked::Flawed);
    assert_eq!(bench.kinds(), ["delivered twice", "second SENDACK"]);
}

#[test]
fn order_and_gaps() {
    let mut bench = Bench::sent(4);
    bench.recv(0, 1);
    bench.recv(2, 2);
    bench.recv(1, 3);
    bench.recv(3, 5);
    for (no, seq) in [(0, 1), (1, 3), (2, 2), (3, 5)] {
        bench.ack(no, seq);
    }
    assert_eq!(bench.kinds(), ["gap", "order"]);
}

#[test]
fn disagreements() {
    let mut bench = Bench::sent(3);
    bench.ack(0, 1);
    bench.recv(0, 2);
    bench.recv(1, 3);
    bench.ack(1, 0);
    assert_eq!(bench.recv_with(2, 4, Flags::RED_DOT, false), Delivered::Flawed);
    assert_eq!(bench.ack(9, 1), Acked::Flawed);
    assert_eq!(bench.recv(9, 4), Delivered::Flawed);
    let kinds = bench.kinds();
    for kind in ["SENDACK and RECV differ", "no seq", "payload changed", "SENDACK of nothing", "RECV of nothing"] {
        assert!(kinds.contains(&kind), "{kind} is not in {kinds:?}");
    }
}

#[test]
fn a_refused_message_is_owed_nothing_but_may_not_arrive() {
    let mut bench = Bench::sent(4);
    let (limit, system) = (ReasonCode(22), ReasonCode(15));
    assert_eq!(bench.ack_with(0, 0, limit), Acked::Refused(limit));
    assert_eq!((bench.pair.unacked(), bench.pair.undelivered()), (3, 3));
    bench.ack_with(1, 0, system);
    // The outcome of this one was unknown; it was stored.
    assert_eq!(bench.recv(1, 1), Delivered::First { due: 10 });
    bench.recv(2, 2);
    bench.ack_with(2, 0, limit);
    bench.ack(3, 3);
    bench.recv(3, 3);
    assert_eq!(bench.kinds(), ["refused but delivered"]);
}
