//! A whole node with a real disk: clients talk, the node stops, its flight recording runs again.

use super::{External, Listening, Node, NodeConfig, PeerOptions, Stopped};
use crate::client::http::Http;
use crate::client::{Client, Event, Login};
use crate::recorder::KEY_FILE;
use crate::storage::{ClusterId, StorageOptions};
use serde_json::json;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wukong_core::Input;
use wukong_core::flight::{Recording, SealKey, Seen, replay};
use wukong_core::ids::NodeId;

const WAIT: Duration = Duration::from_secs(10);

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wukongim-node-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(folder: &Path, shards: u8) -> NodeConfig {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    NodeConfig {
        data_dir: folder.join("data"),
        node_id: NodeId(7),
        shards,
        tcp: any,
        websocket: any,
        http: any,
        external: External::default(),
        token_auth: false,
        manager_token: None,
        record: Some(folder.join("flight")),
        storage: StorageOptions::default(),
        cluster: None,
        peers: None,
    }
}

fn in_runtime<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn start(config: NodeConfig) -> Node {
    let node = Node::start(config, Arc::new(|shard, fault| panic!("shard {shard} halted: {fault}"))).unwrap();
    in_runtime(node.ready());
    node
}

/// Everybody writes `count` messages to the next one and waits for the acks and for what the one before wrote.
fn talk(at: Listening, people: usize, count: usize) {
    let name = |n: usize| format!("person-{}", n % people);
    let mut clients: Vec<Client> =
        (0..people).map(|n| Client::connect(&at.tcp.to_string(), &Login::new(&name(n))).unwrap()).collect();
    for n in 0..count {
        for (who, client) in clients.iter_mut().enumerate() {
            client.send(&name(who + 1), 1, &format!("{who}-{n}"), format!("message {n}").as_bytes()).unwrap();
        }
    }
    for client in &mut clients {
        let (mut acked, mut received) = (0, 0);
        let until = Instant::now() + WAIT;
        while acked < count || received < count {
            assert!(Instant::now() < until, "{acked} acked, {received} received");
            match client.recv(Duration::from_secs(1)).unwrap() {
                Some(Event::SendAck(ack)) => {
                    assert_eq!(ack.reason, wukong_proto::ReasonCode::SUCCESS);
                    acked += 1;
                }
                Some(Event::Recv(recv)) => {
                    client.recv_ack(&recv).unwrap();
                    received += 1;
                }
                _ => {}
            }
        }
    }
}

fn newest(at: Listening, me: &str, peer: &str) -> serde_json::Value {
    let body = json!({"login_uid": me, "channel_id": peer, "channel_type": 1, "limit": 1});
    Http::new(&at.http.to_string()).post("/channel/messagesync", &body).unwrap()
}

#[test]
fn a_recorded_run_of_two_shards_stops_cleanly_and_replays() {
    let folder = Folder::new("replay");
    let node = start(config(&folder.0, 2));
    let at = node.listening;
    talk(at, 6, 20);
    let page = newest(at, "person-0", "person-1");
    assert_eq!(page["messages"][0]["message_seq"], json!(20));
    let metrics = Http::new(&at.http.to_string()).get("/metrics").unwrap();
    assert!(metrics.contains("wukongim_wakes_by_other_shards_total{shard=\"1\"}"), "{metrics}");
    assert_eq!(in_runtime(node.stop()), Ok(Stopped::Cleanly));

    let run = folder.0.join("flight/run-1");
    let hex = fs::read_to_string(run.join(KEY_FILE)).unwrap();
    let key = SealKey::from_hex(&hex).unwrap();
    let open = |n| Recording::open(fs::read(run.join(format!("flight-{n}.rec"))).unwrap().into(), &key).unwrap();
    let mut mail = 0;
    let summary = replay(vec![open(0), open(1)], &mut |_, _, seen| {
        mail += u32::from(matches!(seen, Seen::Input(Input::Mail { .. })));
    });
    let summary = summary.unwrap_or_else(|difference| panic!("{difference}"));
    assert!(summary.inputs > 400 && mail > 100, "{summary:?}, {mail} mails");
}

#[test]
fn what_was_stored_is_there_after_a_restart_with_another_number_of_shards() {
    let folder = Folder::new("restart");
    for (round, shards) in [2, 1, 3].into_iter().enumerate() {
        let node = start(NodeConfig { record: None, ..config(&folder.0, shards) });
        let at = node.listening;
        let before = newest(at, "person-0", "person-1");
        assert_eq!(before["messages"].as_array().map(Vec::len), Some(usize::from(round > 0)), "{before}");
        // The client_msg_no of the first round come again: recognised, not stored twice.
        talk_once(at, round);
        let after = newest(at, "person-0", "person-1");
        assert_eq!(after["messages"][0]["message_seq"], json!(round + 1));
        assert_eq!(in_runtime(node.stop()), Ok(Stopped::Cleanly));
    }
}

fn talk_once(at: Listening, round: usize) {
    let mut client = Client::connect(&at.tcp.to_string(), &Login::new("person-0")).unwrap();
    for no in [round, 0] {
        client.send("person-1", 1, &format!("no-{no}"), b"hello").unwrap();
        let until = Instant::now() + WAIT;
        loop {
            assert!(Instant::now() < until, "no ack");
            if let Some(Event::SendAck(ack)) = client.recv(Duration::from_secs(1)).unwrap() {
                assert_eq!(ack.message_seq, no as u64 + 1);
                break;
            }
        }
    }
}

/// An address that was free a moment ago.
fn free() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).unwrap()
}

#[test]
fn nodes_of_one_cluster_link_and_one_of_another_does_not() {
    let (folders, at) = ([1, 2].map(|n| Folder::new(&format!("peer-{n}"))), [free(), free()]);
    let with = |index: usize, cluster| {
        let (me, other) = (index as u16 + 1, 2 - index as u16);
        let peers = PeerOptions {
            listen: at[index],
            secret: "a secret for tests".into(),
            nodes: vec![(NodeId(other), at[1 - index].to_string())],
        };
        let config = config(&folders[index].0, 2);
        NodeConfig {
            node_id: NodeId(me),
            record: None,
            cluster: Some(ClusterId(cluster)),
            peers: Some(peers),
            ..config
        }
    };
    let (one, two) = (start(with(0, 7)), start(with(1, 7)));
    let until = Instant::now() + WAIT;
    while ![&one, &two].iter().all(|node| node.peers()[0].up.is_some_and(|p| p.shards == 2)) {
        assert!(Instant::now() < until, "{:?} {:?}", one.peers(), two.peers());
        std::thread::sleep(Duration::from_millis(5));
    }
    let metrics = Http::new(&one.listening.http.to_string()).get("/metrics").unwrap();
    assert!(metrics.contains("wukongim_peer_link_up{node=\"2\"} 1\n"), "{metrics}");
    assert_eq!(in_runtime(one.stop()), Ok(Stopped::Cleanly));
    assert_eq!(in_runtime(two.stop()), Ok(Stopped::Cleanly));
    match Node::start(with(0, 8), Arc::new(|_, _| {})) {
        Ok(_) => panic!("a data directory changed its cluster"),
        Err(e) => assert!(e.to_string().contains("belongs to cluster 00000000000000000000000000000007"), "{e}"),
    }
}

#[test]
fn a_second_node_on_the_same_data_or_port_is_refused() {
    let folder = Folder::new("twice");
    let node = start(NodeConfig { record: None, ..config(&folder.0, 1) });
    let refused = |config: NodeConfig| match Node::start(config, Arc::new(|_, _| {})) {
        Ok(_) => panic!("started"),
        Err(e) => e.to_string(),
    };
    let same_data = refused(NodeConfig { record: None, ..config(&folder.0, 1) });
    assert!(same_data.contains("in use by process"), "{same_data}");
    let other = Folder::new("twice-other");
    for shards in [1, 2] {
        let same_port = NodeConfig { tcp: node.listening.tcp, record: None, ..config(&other.0, shards) };
        let same_port = refused(same_port);
        assert!(same_port.contains("--tcp-addr"), "{same_port}");
    }
    assert_eq!(in_runtime(node.stop()), Ok(Stopped::Cleanly));
}
