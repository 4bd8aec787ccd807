//! The greeting on a new stream: who is there, do both know the secret, and may this stream be.

use super::Local;
use super::hub::Hub;
use super::wire::Wire;
use bytes::Bytes;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;
use wukong_core::ids::{Incarnation, LinkClass, NodeId, PeerProcess, StoreId};
use wukong_proto::hello::{Handshake, Hello, Refusal, RefusalCode, Side, WIRE_MAX, WIRE_MIN, common_wire, transcript};

/// Who is at the other end, for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeted {
    pub process: PeerProcess,
    pub class: LinkClass,
    pub link: u64,
}

/// Why there is no stream.
#[derive(Debug)]
pub(super) enum Failed {
    Broke(String),
    /// The other side's decision.
    Refused(Refusal),
    /// Ours; the other side is told.
    Refuse(Refusal),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broke(why) => f.write_str(why),
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::Refuse(refusal) => refusal.fmt(f),
        }
    }
}

pub(super) fn refusal(code: RefusalCode, reason: impl Into<String>) -> Refusal {
    Refusal { code, reason: reason.into().into() }
}

fn unexpected(what: impl fmt::Display) -> Failed {
    Failed::Refuse(refusal(RefusalCode::Other, format!("unexpected: {what}")))
}

/// HMAC-SHA256 of the transcript under the cluster's secret.
struct Authenticator(Hmac<Sha256>);

impl Authenticator {
    fn new(secret: &[u8], side: Side, dialled: &[u8], accepted: &[u8]) -> Self {
        // HMAC takes a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap_or_else(|_| unreachable!());
        mac.update(&transcript(side, dialled, accepted));
        Self(mac)
    }

    fn bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0.finalize().into_bytes())
    }

    /// Takes the same time wherever the first difference is.
    fn check(self, given: &[u8]) -> Result<(), Refusal> {
        self.0.verify_slice(given).map_err(|_| {
            refusal(
                RefusalCode::WrongSecret,
                "the cluster secrets differ. Give all nodes of the cluster the same --cluster-secret.",
            )
        })
    }
}

impl Local {
    fn hello(&self, class: LinkClass, link: u64, nonce: [u8; 32]) -> Hello {
        Hello {
            cluster: self.cluster,
            node: self.node.0,
            store: self.store.0,
            incarnation: self.incarnation.0,
            shards: self.shards,
            wire_min: WIRE_MIN,
            wire_max: WIRE_MAX,
            class: class as u8,
            link,
            nonce,
        }
    }

    /// What can be said about the other side before it proved anything.
    fn judge(&self, mine: &Hello, theirs: &Hello) -> Result<Greeted, Refusal> {
        if theirs.cluster != self.cluster {
            return Err(refusal(
                RefusalCode::OtherCluster,
                format!(
                    "node {} belongs to cluster {:032x} and node {} to {:032x}. Give both the same --cluster-id, or take the \
                     wrong one out of --peer.",
                    theirs.node, theirs.cluster, self.node, self.cluster
                ),
            ));
        }
        if theirs.node == self.node.0 {
            let reason = format!(
                "both ends call themselves node {}. Every node needs its own --node-id and data directory, and none is its own --peer.",
                self.node
            );
            return Err(refusal(RefusalCode::Itself, reason));
        }
        if theirs.store == self.store.0 {
            let reason = format!(
                "nodes {} and {} have the same store {}: a copied data directory. Start one of them with an empty one.",
                self.node,
                theirs.node,
                hex(self.store)
            );
            return Err(refusal(RefusalCode::StoreTwice, reason));
        }
        let Some(wire) = common_wire(mine, theirs) else {
            let reason = format!(
                "node {} speaks versions {} to {} between nodes, node {} speaks {} to {}. Upgrade the older one.",
                self.node, mine.wire_min, mine.wire_max, theirs.node, theirs.wire_min, theirs.wire_max
            );
            return Err(refusal(RefusalCode::NoCommonVersion, reason));
        };
        let process = PeerProcess {
            node: NodeId(theirs.node),
            store: StoreId(theirs.store),
            incarnation: Incarnation(theirs.incarnation),
            shards: theirs.shards,
            wire,
        };
        let class = LinkClass::of(theirs.class).ok_or_else(|| refusal(RefusalCode::Other, "an unknown class"))?;
        Ok(Greeted { process, class, link: theirs.link })
    }
}

pub(super) fn hex(store: StoreId) -> String {
    format!("{:032x}", store.0)
}

impl Wire {
    fn say(&self, message: &Handshake) {
        self.out.push([message.encode()]);
    }

    async fn hear(&mut self) -> Result<Handshake, Failed> {
        match self.incoming.next().await {
            Ok(Some(message)) => match Handshake::decode(&message).map_err(unexpected)? {
                Handshake::Refused(refusal) => Err(Failed::Refused(refusal)),
                message => Ok(message),
            },
            Ok(None) => Err(Failed::Broke("the other side closed the stream".to_owned())),
            Err(why) => Err(Failed::Broke(why)),
        }
    }
}

/// The dialling side, up to the welcome.
pub(super) async fn dial(
    hub: &Hub,
    wire: &mut Wire,
    dialled: NodeId,
    class: LinkClass,
    link: u64,
) -> Result<Greeted, Failed> {
    let local = &hub.local;
    let mine = local.hello(class, link, hub.nonce());
    let sent = mine.encode();
    wire.say(&Handshake::Hello { hello: sent.clone(), authenticator: Bytes::new() });
    let Handshake::Hello { hello, authenticator } = wire.hear().await? else {
        return Err(unexpected("not a hello"));
    };
    let theirs = Hello::decode(&hello).map_err(unexpected)?;
    let greeted = local.judge(&mine, &theirs).map_err(Failed::Refuse)?;
    if greeted.process.node != dialled {
        let reason = format!(
            "node {dialled} was dialled and node {} answered. Correct the address in --peer {dialled}=HOST:PORT of node {}.",
            greeted.process.node, local.node
        );
        return Err(Failed::Refuse(refusal(RefusalCode::WrongNode, reason)));
    }
    if greeted.class != class || greeted.link != link {
        return Err(unexpected("an answer for another stream"));
    }
    let check = Authenticator::new(&hub.secret, Side::Accept, &sent, &hello);
    check.check(&authenticator).map_err(Failed::Refuse)?;
    // Before the proof, so that the other side never takes for open what is refused here.
    hub.remember(&greeted.process).map_err(Failed::Refuse)?;
    let proof = Authenticator::new(&hub.secret, Side::Dial, &sent, &hello).bytes();
    wire.say(&Handshake::Authenticator(proof));
    match wire.hear().await? {
        Handshake::Welcome => Ok(greeted),
        _ => Err(unexpected("not a welcome")),
    }
}

/// The accepting side, up to but not including the welcome: that is said when the stream has its seat.
pub(super) async fn accept(hub: &Hub, wire: &mut Wire) -> Result<Greeted, Failed> {
    let local = &hub.local;
    let Handshake::Hello { hello, .. } = wire.hear().await? else { return Err(unexpected("not a hello")) };
    let theirs = Hello::decode(&hello).map_err(unexpected)?;
    let class = LinkClass::of(theirs.class).ok_or_else(|| unexpected("an unknown class"))?;
    let mine = local.hello(class, theirs.link, hub.nonce());
    let greeted = local.judge(&mine, &theirs).map_err(Failed::Refuse)?;
    let sent = mine.encode();
    let authenticator = Authenticator::new(&hub.secret, Side::Accept, &hello, &sent).bytes();
    wire.say(&Handshake::Hello { hello: sent.clone(), authenticator });
    let Handshake::Authenticator(proof) = wire.hear().await? else { return Err(unexpected("no authenticator")) };
    let check = Authenticator::new(&hub.secret, Side::Dial, &hello, &sent);
    check.check(&proof).map_err(Failed::Refuse)?;
    Ok(greeted)
}
