//! Two people and a server of the tests.

use std::sync::{Arc, Mutex};

use super::*;
use crate::load::fake::{self, Fault};

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl io::Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn wait_for(&self, text: &str) {
        for _ in 0..500 {
            if self.text().contains(text) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("'{text}' does not appear in\n{}", self.text());
    }
}

fn args(addr: &str, uid: &str, to: &str) -> Args {
    Args {
        uid: uid.into(),
        to: to.into(),
        group: false,
        addr: addr.into(),
        // Port 1: nobody.
        http: "127.0.0.1:1".into(),
        token: String::new(),
        history: 20,
        linger: 0,
    }
}

#[test]
fn two_people_talk() {
    let addr = fake::start(Fault::None).to_string();
    let (screen, (lines, typed)) = (Screen::default(), mpsc::channel());
    let bob = {
        let (screen, args) = (screen.clone(), args(&addr, "bob", "alice"));
        std::thread::spawn(move || Room::enter(&args, screen).unwrap().stay(&typed, Duration::ZERO))
    };
    screen.wait_for("you are bob");
    screen.wait_for("earlier messages cannot be shown");

    let (alice, (piped, input)) = (Screen::default(), mpsc::channel());
    read_lines(&b"hello bob\n\n  \nsecond\n/quit\nnever\n"[..], &piped);
    let with = args(&addr, "alice", "bob");
    Room::enter(&with, alice.clone()).unwrap().stay(&input, Duration::ZERO).unwrap();
    assert!(alice.text().contains("you (seq 1 ✓): hello bob\nyou (seq 2 ✓): second\n"), "{}", alice.text());
    screen.wait_for("22:13:20 alice (seq 2): second");
    lines.send(Line::End).unwrap();
    bob.join().unwrap().unwrap();
    assert_eq!(screen.text().matches("hello bob").count(), 1);
}

#[test]
fn what_was_not_confirmed_is_sent_again() {
    let addr = fake::start(Fault::Drops).to_string();
    let (screen, (piped, input)) = (Screen::default(), mpsc::channel());
    let many: String = (1..=100).map(|i| format!("line {i}\n")).collect();
    read_lines(many.as_bytes(), &piped);
    let with = args(&addr, "alice", "bob");
    Room::enter(&with, screen.clone()).unwrap().stay(&input, Duration::ZERO).unwrap();
    let text = screen.text();
    assert!(text.contains("-- the server is gone"), "{text}");
    assert!(text.contains("unconfirmed messages again"), "{text}");
    assert!(text.contains("✓): line 100\n"), "{text}");
}

#[test]
fn no_server_says_what_to_run() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let with = args(&nobody.to_string(), "alice", "bob");
    let why = Room::enter(&with, Screen::default()).err().unwrap();
    assert!(why.contains("wukongim run"), "{why}");
    let addr = fake::start(Fault::RefusesLogins).to_string();
    let with = args(&addr, "alice", "bob");
    let why = Room::enter(&with, Screen::default()).err().unwrap();
    assert!(why.contains("/user/token") && why.contains("--token"), "{why}");
}
