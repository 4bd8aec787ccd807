//! The options about other nodes: `--peer`, `--cluster-id`, `--cluster-secret`.

use crate::node::PeerOptions;
use crate::storage::ClusterId;
use std::net::SocketAddr;
use wukong_core::ids::NodeId;

/// The peers' port where an entry names none (webhooks-and-config 5.2).
const PORT: u16 = 11_110;
const SECRET_MIN: usize = 16;

/// One `--peer`.
pub type PeerArg = (NodeId, String);

/// `ID=HOST:PORT`, or as the reference writes it: `ID@HOST`, with `:PORT` if it is another than 11110.
pub fn peer(text: &str) -> Result<PeerArg, String> {
    let (id, addr) = text.split_once(['=', '@']).ok_or("give ID=HOST:PORT, like 1002=10.0.0.2:11110")?;
    let id = id.parse().ok().filter(|id| (1..=1023).contains(id)).ok_or("a node id is a number from 1 to 1023")?;
    let port = addr.rsplit_once(':').filter(|(host, _)| !host.ends_with(':')).map(|(_, port)| port.parse::<u16>());
    match port {
        _ if addr.is_empty() || addr.starts_with(':') => Err(format!("the address of node {id} has no host")),
        Some(Ok(1..)) => Ok((NodeId(id), addr.to_owned())),
        None => Ok((NodeId(id), format!("{addr}:{PORT}"))),
        _ => Err(format!("the address of node {id} has no port that could be dialled")),
    }
}

pub fn cluster_id(text: &str) -> Result<ClusterId, String> {
    let hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let id = if hex { u128::from_str_radix(text, 16).ok() } else { None };
    id.map(ClusterId).ok_or_else(|| "give 32 hexadecimal digits; `openssl rand -hex 16` makes some".to_owned())
}

/// None: without other nodes there is nothing to listen for. This node itself may be on the list.
///
/// # Errors
/// What is missing, and how to get it.
pub fn options(
    node: NodeId,
    peers: &[PeerArg],
    listen: SocketAddr,
    cluster: Option<ClusterId>,
    secret: Option<&str>,
) -> Result<Option<PeerOptions>, String> {
    let nodes: Vec<PeerArg> = peers.iter().filter(|(id, _)| *id != node).cloned().collect();
    if nodes.is_empty() {
        return Ok(None);
    }
    for (n, (id, addr)) in nodes.iter().enumerate() {
        if let Some((_, other)) = nodes[..n].iter().find(|(other, _)| other == id) {
            return Err(format!("node {id} is given twice, as {other} and {addr}: leave out one --peer."));
        }
    }
    if cluster.is_none() {
        return Err(
            "--peer needs --cluster-id: the same 32 hexadecimal digits for all nodes. `openssl rand -hex 16` makes \
                    some; a data directory that is in use keeps the id that its node shows at the start."
                .to_owned(),
        );
    }
    let Some(secret) = secret.filter(|secret| secret.len() >= SECRET_MIN) else {
        return Err(format!(
            "--peer needs --cluster-secret with at least {SECRET_MIN} characters, the same for all nodes. \
             `openssl rand -hex 32` makes one; WK_CLUSTER_SECRET keeps it out of the process list."
        ));
    };
    Ok(Some(PeerOptions { listen, secret: secret.to_owned(), nodes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_written_in_two_ways() {
        let parsed = |text: &str| peer(text).map(|(id, addr)| format!("{id} {addr}"));
        assert_eq!(parsed("1002=10.0.0.2:7").as_deref(), Ok("1002 10.0.0.2:7"));
        assert_eq!(parsed("2=[::1]:7").as_deref(), Ok("2 [::1]:7"));
        assert_eq!(parsed("3@wk-node3").as_deref(), Ok("3 wk-node3:11110"));
        for bad in ["", "1002", "0=a:1", "1024=a:1", "x=a:1", "1=", "1=:7", "1=a:0", "1=a:70000", "1=a:b"] {
            assert!(peer(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn peers_want_a_cluster_and_a_secret() {
        let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
        let (me, other) = ((NodeId(1), "a:1".to_owned()), (NodeId(2), "b:1".to_owned()));
        let id = Some(cluster_id("0123456789abcdef0123456789ABCDEF").unwrap());
        let secret = Some("sixteen letters!");
        let given = |peers: &[PeerArg], id, secret| options(NodeId(1), peers, listen, id, secret);
        assert!(matches!(given(&[], id, secret), Ok(None)));
        assert!(matches!(given(std::slice::from_ref(&me), None, None), Ok(None)));
        let all = [me, other.clone()];
        assert_eq!(given(&all, id, secret).unwrap().unwrap().nodes, std::slice::from_ref(&other));
        assert!(given(&all, None, secret).unwrap_err().contains("--cluster-id"));
        assert!(given(&all, id, None).unwrap_err().contains("--cluster-secret"));
        assert!(given(&all, id, Some("short")).unwrap_err().contains("16"));
        assert!(given(&[other.clone(), other], id, secret).unwrap_err().contains("twice"));
        assert!(cluster_id("xyz").is_err() && cluster_id(&"+".repeat(32)).is_err());
    }
}
