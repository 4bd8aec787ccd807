//! Links over loopback with the real RPC library: two or three processes' worth of them in one test.

use super::wire::Listener;
use super::*;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Instant;
use wukong_core::Input;

const WAIT: Duration = Duration::from_secs(10);
const SECRET: &str = "a secret for tests";

/// One process: its links, their thread, and what its one shard got.
struct Process {
    peers: Peers,
    inbox: Arc<Inbox>,
    seen: Mutex<Vec<Input>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

fn listener() -> (Listener, SocketAddr) {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn config(node: u16, peers: &[(u16, SocketAddr)]) -> PeersConfig {
    PeersConfig {
        local: Local {
            cluster: 7,
            node: NodeId(node),
            store: StoreId(u128::from(node)),
            incarnation: Incarnation(5),
            shards: 1,
        },
        secret: SECRET.into(),
        peers: peers.iter().map(|(node, addr)| (NodeId(*node), addr.to_string())).collect(),
        seed: [node as u8; 32],
        limits: PeerLimits::default(),
    }
}

impl Process {
    fn start(config: PeersConfig, listener: Listener) -> Self {
        let inbox = Arc::<Inbox>::default();
        let peers = Peers::new(config, vec![inbox.clone()]);
        let (stop, stopped) = watch::channel(false);
        let thread = Some(thread::spawn(peers.clone(), listener, stopped).unwrap());
        Self { peers, inbox, seen: Mutex::default(), stop, thread }
    }

    fn with_seen<T>(&self, look: impl FnOnce(&[Input]) -> T) -> T {
        let mut seen = self.seen.lock().unwrap();
        seen.extend(self.inbox.take_peers());
        look(&seen)
    }

    /// Waits until this holds for everything that came so far.
    fn wait(&self, what: &str, done: impl Fn(&[Input]) -> bool) {
        let until = Instant::now() + WAIT;
        while !self.with_seen(&done) {
            assert!(Instant::now() < until, "{what}: {:?}", self.peers.status());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait_up(&self) {
        self.wait("no link", |seen| ups_and_downs(seen).last().is_some_and(|(up, _)| *up));
    }

    fn wait_trouble(&self, node: u16, part: &str) {
        let until = Instant::now() + WAIT;
        loop {
            let status = self.peers.status();
            let trouble = status.iter().find(|s| s.node == NodeId(node)).and_then(|s| s.trouble.clone());
            if trouble.as_ref().is_some_and(|t| t.contains(part)) {
                return assert!(status.iter().all(|s| s.up.is_none()));
            }
            assert!(Instant::now() < until, "no trouble with \"{part}\" but {trouble:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the links do not panic").expect("the listener works");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// (up, incarnation) in order.
fn ups_and_downs(seen: &[Input]) -> Vec<(bool, u64)> {
    let one = |input: &Input| match input {
        Input::PeerUp { peer } => Some((true, peer.incarnation.0)),
        Input::PeerDown { incarnation, .. } => Some((false, incarnation.0)),
        _ => None,
    };
    seen.iter().filter_map(one).collect()
}

/// Frame `n` of a class, padded to `size`.
fn frame(class: LinkClass, n: u32, size: usize) -> Bytes {
    let mut frame = vec![1, class as u8, 0];
    frame.extend_from_slice(&n.to_be_bytes());
    frame.resize(size.max(frame.len()), 0);
    frame.into()
}

/// The numbers of the frames of a class, in order of arrival.
fn numbers(seen: &[Input], class: LinkClass) -> Vec<u32> {
    let one = |input: &Input| match input {
        Input::PeerFrame { frame, .. } if frame[1] == class as u8 => {
            Some(u32::from_be_bytes(frame[3..7].try_into().unwrap()))
        }
        _ => None,
    };
    seen.iter().filter_map(one).collect()
}

fn two() -> (Process, Process) {
    let ((one, one_at), (two, two_at)) = (listener(), listener());
    (Process::start(config(1, &[(2, two_at)]), one), Process::start(config(2, &[(1, one_at)]), two))
}

#[test]
fn ten_thousand_frames_of_each_class_arrive_in_order_both_ways() {
    let (mut one, mut two) = two();
    one.wait_up();
    two.wait_up();
    const COUNT: u32 = 10_000;
    let started = Instant::now();
    for first in (0..COUNT).step_by(100) {
        for class in LinkClass::ALL {
            for n in first..first + 100 {
                one.peers.send(NodeId(2), class, frame(class, n, 128));
                two.peers.send(NodeId(1), class, frame(class, n, 128));
            }
        }
        one.peers.flush();
        two.peers.flush();
    }
    let total = COUNT as usize * LinkClass::ALL.len();
    for side in [&one, &two] {
        side.wait("frames are missing", |seen| seen.len() == 1 + total);
        side.with_seen(|seen| {
            assert!(matches!(&seen[0], Input::PeerUp { peer } if peer.incarnation == Incarnation(5)));
            for class in LinkClass::ALL {
                assert!(numbers(seen, class).into_iter().eq(0..COUNT));
            }
        });
        let sample = side.peers.sample();
        assert_eq!((sample.peer_frames_out, sample.peer_frames_in), (total as u64, total as u64));
        assert_eq!((sample.peer_links_up, sample.peer_frames_dropped), (1, 0));
    }
    let rate = 2.0 * total as f64 / started.elapsed().as_secs_f64();
    println!("128 B, three streams, both ways: {rate:.0} frames/s in all");
}

#[test]
fn a_process_that_comes_back_is_another_incarnation() {
    let ((one, one_at), (two, two_at)) = (listener(), listener());
    let one = Process::start(config(1, &[(2, two_at)]), one);
    let again = two.try_clone().unwrap();
    let mut two = Process::start(config(2, &[(1, one_at)]), two);
    one.wait_up();
    two.end();
    one.wait("no end", |seen| ups_and_downs(seen).len() == 2);
    let mut later = config(2, &[(1, one_at)]);
    later.local.incarnation = Incarnation(6);
    let two = Process::start(later, again);
    two.wait_up();
    one.wait("not back", |seen| ups_and_downs(seen) == [(true, 5), (false, 5), (true, 6)]);
    // What was sent to the process that is gone is not kept for the new one.
    two.with_seen(|seen| assert_eq!(seen.len(), 1));
    assert_eq!(one.peers.status()[0].up.map(|p| p.incarnation), Some(Incarnation(6)));
}

#[test]
fn an_older_incarnation_is_refused() {
    let ((one, one_at), (two, two_at)) = (listener(), listener());
    let one = Process::start(config(1, &[(2, two_at)]), one);
    let again = two.try_clone().unwrap();
    let mut two = Process::start(config(2, &[(1, one_at)]), two);
    one.wait_up();
    two.end();
    let mut older = config(2, &[(1, one_at)]);
    older.local.incarnation = Incarnation(4);
    let two = Process::start(older, again);
    one.wait_trouble(2, "start 4 of node 2 comes after its start 5");
    assert!(two.with_seen(<[Input]>::is_empty));
    assert_eq!(one.with_seen(ups_and_downs), [(true, 5), (false, 5)]);
}

/// Starts nodes 1 and 2, the second one changed, and waits for both to say why there is no link.
fn refused(change: impl Fn(&mut PeersConfig), part: &str) {
    let ((one, one_at), (two, two_at)) = (listener(), listener());
    let mut changed = config(2, &[(1, one_at)]);
    change(&mut changed);
    let two = Process::start(changed, two);
    let one = Process::start(config(1, &[(2, two_at)]), one);
    one.wait_trouble(2, part);
    assert!(one.with_seen(<[Input]>::is_empty) && two.with_seen(<[Input]>::is_empty));
    assert_eq!(one.peers.sample().peer_links_up, 0);
}

#[test]
fn strangers_are_refused_with_the_reason() {
    refused(|c| c.secret = b"another secret 123".to_vec(), "the cluster secrets differ");
    refused(|c| c.local.cluster = 8, "node 1 belongs to cluster 00000000000000000000000000000007 and node 2 to");
    refused(|c| c.local.node = NodeId(3), "node 2 was dialled and node 3 answered");
    refused(|c| c.local.node = NodeId(1), "both ends call themselves node 1");
    refused(|c| c.local.store = StoreId(1), "nodes 2 and 1 have the same store");
    refused(|c| c.peers.clear(), "node 2 does not know node 1");
}

#[test]
fn a_copied_store_is_refused_under_its_second_name() {
    let ((one, one_at), (two, two_at), (three, three_at)) = (listener(), listener(), listener());
    let one = Process::start(config(1, &[(2, two_at), (3, three_at)]), one);
    let _two = Process::start(config(2, &[(1, one_at)]), two);
    one.wait_up();
    let mut copy = config(3, &[(1, one_at)]);
    copy.local.store = StoreId(2);
    let _three = Process::start(copy, three);
    let until = Instant::now() + WAIT;
    let trouble = || one.peers.status()[1].trouble.clone().unwrap_or_default();
    while !trouble().contains("is known as node 2, and now node 3 has it") {
        assert!(Instant::now() < until, "{}", trouble());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(one.peers.status()[0].up.is_some());
}

#[test]
fn a_stalled_shard_holds_up_neither_control_nor_the_sender() {
    let ((one, one_at), (two, two_at)) = (listener(), listener());
    let mut one = Process::start(config(1, &[(2, two_at)]), one);
    let mut small = config(2, &[(1, one_at)]);
    small.limits.inbox_bytes = 1 << 20;
    let two = Process::start(small, two);
    one.wait_up();
    // 100 MB of data, which the shard of node 2 does not take.
    let size = 1 << 16;
    for n in 0..1_600 {
        one.peers.send(NodeId(2), LinkClass::Data, frame(LinkClass::Data, n, size));
        one.peers.flush();
    }
    let until = Instant::now() + WAIT;
    while two.peers.sample().peer_reads_paused == 0 {
        assert!(Instant::now() < until, "it reads on: {:?}", two.peers.sample());
        std::thread::sleep(Duration::from_millis(1));
    }
    let dropped = one.peers.sample().peer_frames_dropped;
    assert!(dropped > 0, "the sender's queue is bounded");
    let in_before = two.peers.sample().peer_frames_in;
    assert!(two.inbox.peer_bytes() < (1 << 20) + 256 * size, "{} bytes wait", two.inbox.peer_bytes());
    one.peers.send(NodeId(2), LinkClass::Control, frame(LinkClass::Control, 7, 0));
    one.peers.flush();
    let until = Instant::now() + WAIT;
    while two.peers.sample().peer_frames_in == in_before {
        assert!(Instant::now() < until, "control does not get through");
        std::thread::sleep(Duration::from_millis(1));
    }
    // Now the shard goes on: all that was not dropped arrives, in order.
    let expected = 1_600 - dropped as usize;
    two.wait("the rest", |seen| numbers(seen, LinkClass::Data).len() == expected);
    two.with_seen(|seen| {
        assert!(numbers(seen, LinkClass::Data).is_sorted());
        assert_eq!(numbers(seen, LinkClass::Control), [7]);
        assert_eq!(ups_and_downs(seen), [(true, 5)]);
    });
}

#[test]
fn a_full_control_queue_and_a_frame_for_no_shard_end_the_link() {
    let ((one, one_at), (two, two_at)) = (listener(), listener());
    let mut tight = config(1, &[(2, two_at)]);
    tight.limits.queue_bytes[LinkClass::Control as usize] = 1_000;
    let mut one = Process::start(tight, one);
    let mut two = Process::start(config(2, &[(1, one_at)]), two);
    one.wait_up();
    for n in 0..100 {
        one.peers.send(NodeId(2), LinkClass::Control, frame(LinkClass::Control, n, 100));
    }
    one.peers.flush();
    one.wait("it did not end and come back", |seen| ups_and_downs(seen) == [(true, 5), (false, 5), (true, 5)]);
    assert_eq!(one.peers.sample().peer_control_overflows, 1);

    two.wait("two is not back", |seen| ups_and_downs(seen).iter().filter(|(up, _)| *up).count() == 2);
    two.peers.send(NodeId(1), LinkClass::Data, Bytes::from_static(&[1, 1, 9]));
    two.peers.flush();
    one.wait("a frame for shard 9 was taken", |seen| ups_and_downs(seen).len() >= 4);
    assert_eq!(one.peers.sample().peer_violations, 1);
}

/// Not an assertion but a figure: `cargo test --release -p wukong-runtime peers::tests::rate -- --nocapture`.
#[test]
fn rate_of_one_stream() {
    let (mut one, two) = two();
    one.wait_up();
    for (size, count) in [(128, 20_000_u32), (4_096, 5_000)] {
        let count = if cfg!(debug_assertions) { count } else { count * 20 };
        let (started, before) = (Instant::now(), two.peers.sample().peer_frames_in);
        let mut sent = 0;
        let got = || (two.peers.sample().peer_frames_in - before) as u32;
        while got() < count {
            assert!(started.elapsed() < 6 * WAIT, "{} of {count}", got());
            if sent < count && sent - got() < 2_000 {
                for _ in 0..100 {
                    one.peers.send(NodeId(2), LinkClass::Data, frame(LinkClass::Data, sent, size));
                    sent += 1;
                }
                one.peers.flush();
            } else {
                std::thread::yield_now();
            }
            two.inbox.take_peers();
        }
        println!("{size} B, one stream: {:.0} frames/s", f64::from(count) / started.elapsed().as_secs_f64());
    }
}
