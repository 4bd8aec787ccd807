//! Messages that the script puts on the network itself.

use super::command::Words;
use super::names::{position, replica};
use super::world::World;
use wukong_core::ids::{Epoch, Incarnation};
use wukong_core::raft::message::{Envelope, Fetch, Message, TransferToken};

/// `send B>A VoteReq e=3 pos=1.2`
pub fn send(world: &mut World, words: &Words) {
    let (from, to) = words.at(1).split_once('>').expect("from>to");
    let (from, to) = (replica(from), replica(to));
    let pos = words.key("pos").map(position).unwrap_or_default();
    let epoch = Epoch(words.number("e").expect("e"));
    let hw = words.number("hw").unwrap_or(0);
    let message = match words.at(2) {
        "VoteReq" => {
            let transfer = words.number("token").map(|e| TransferToken { epoch: Epoch(e), nonce: 7 });
            Message::VoteReq { pos, transfer }
        }
        "VoteResp" => Message::VoteResp { granted: words.has("yes") },
        "PreVoteReq" => Message::PreVoteReq { next_epoch: Epoch(epoch.0 + 1), pos },
        "Beat" => Message::Beat { seq: words.number("seq").unwrap_or(1), hw },
        "Wake" => Message::Wake,
        "TransferNow" => Message::TransferNow { token: TransferToken { epoch, nonce: 7 } },
        "Fetch" => Message::Fetch(Fetch {
            seq: words.number("seq").unwrap_or(1),
            pos,
            durable: words.key("dur").map_or(pos, position),
            hw,
            beat: words.number("beat").unwrap_or(0),
            answer_now: words.has("now"),
            damaged: words.has("damaged"),
        }),
        other => panic!("cannot forge {other}"),
    };
    let known = world.nodes.iter().find(|n| n.me == from).map_or(1, |n| n.incarnation);
    let from_incarnation = Incarnation(words.number("incarnation").unwrap_or(known));
    world.net.push_back(Envelope { from, to, from_incarnation, epoch, message });
}
