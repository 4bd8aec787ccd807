// One user of the published SDK, driven by lines of JSON: orders on stdin, events on stdout. tests/sdk.rs bundles it.
//
// The SDK is used as an application uses it: its public members and the provider callbacks, nothing patched.

import { createInterface } from "node:readline";
import { Channel, Conversation, Message, MessageHeader, MessageText, SyncOptions, WKSDK } from "wukongimjssdk/lib/sdk";
import { Setting } from "wukongimjssdk/lib/proto";
import WebSocket from "ws";

// The SDK logs with console.log; stdout is ours.
console.log = console.error;
// Node 22 has one of its own; the tests want the same everywhere.
globalThis.WebSocket = WebSocket;

const sdk = WKSDK.shared();
const tell = (event) => process.stdout.write(JSON.stringify(event) + "\n");
for (const name of ["uncaughtException", "unhandledRejection"]) {
  process.on(name, (error) => tell({ event: "fault", text: String(error?.stack ?? error) }));
}

let api = "";

async function post(path, body) {
  const answer = await fetch(api + path, { method: "POST", body: JSON.stringify(body) });
  const text = await answer.text();
  if (answer.status !== 200) throw new Error(`${path}: ${answer.status} ${text}`);
  return JSON.parse(text);
}

// What section 15.8 of the wire protocol says about filling the SDK's objects.
function toMessage(m) {
  const message = new Message();
  message.messageID = m.message_idstr;
  message.header = new MessageHeader();
  message.header.reddot = m.header.red_dot === 1;
  message.setting = Setting.fromUint8(m.setting);
  message.messageSeq = m.message_seq;
  message.clientMsgNo = m.client_msg_no;
  message.fromUID = m.from_uid;
  message.timestamp = m.timestamp;
  const content = JSON.parse(Buffer.from(m.payload, "base64").toString("utf8"));
  message.content = new MessageText();
  message.content.decode(new TextEncoder().encode(JSON.stringify(content)));
  return message;
}

function setUp(order) {
  api = order.api;
  sdk.config.uid = order.uid;
  sdk.config.token = order.token;
  sdk.config.provider.connectAddrCallback = (give) => {
    // While the server is down the last address is good enough, as for an application that keeps it.
    fetch(`${api}/route?uid=${order.uid}`)
      .then((answer) => answer.json())
      .then((route) => (sdk.config.addr = route.wss_addr || route.ws_addr))
      .catch(() => {})
      .finally(() => give(sdk.config.addr));
  };
  sdk.config.provider.syncConversationsCallback = async () => {
    const rows = await post("/conversation/sync", { uid: order.uid, msg_count: 1 });
    return rows.map((row) => {
      const conversation = new Conversation();
      conversation.channel = new Channel(row.channel_id, row.channel_type);
      conversation.unread = row.unread;
      conversation.timestamp = row.timestamp;
      conversation.lastMessage = toMessage(row.recents[0]);
      return conversation;
    });
  };
  sdk.config.provider.syncMessagesCallback = async (channel, opts) => {
    const page = await post("/channel/messagesync", {
      login_uid: order.uid,
      channel_id: channel.channelID,
      channel_type: channel.channelType,
      start_message_seq: opts.startMessageSeq,
      end_message_seq: opts.endMessageSeq,
      limit: opts.limit,
      pull_mode: opts.pullMode,
    });
    return page.messages.map(toMessage);
  };
  // What is sent again after a reconnect goes out in the text order of its number (1, 10, 11, 2): numbers of one length
  // make that the order of sending.
  sdk.chatManager.clientSeq = 100000;
  sdk.connectManager.addConnectStatusListener((status, reason) => tell({ event: "status", status, reason }));
  sdk.chatManager.addMessageListener((message) => {
    if (message.fromUID === order.uid) return;
    tell({ event: "recv", ...plain(message), channel: message.channel.channelID });
  });
  sdk.chatManager.addMessageStatusListener((ack) =>
    tell({ event: "ack", clientSeq: ack.clientSeq, id: String(ack.messageID), seq: ack.messageSeq, reason: ack.reasonCode }),
  );
}

function plain(message) {
  return {
    from: message.fromUID,
    id: String(message.messageID),
    seq: message.messageSeq,
    clientMsgNo: message.clientMsgNo,
    text: message.content.text,
  };
}

const orders = {
  start(order) {
    setUp(order);
    sdk.connect();
  },
  async send({ to, text }) {
    // Rejects while the socket is opening; the message stays queued and goes out later.
    const sending = sdk.chatManager.send(new MessageText(text), new Channel(to, 1));
    const clientSeq = sdk.chatManager.clientSeq;
    const { clientMsgNo } = sdk.chatManager.sendingQueues.get(clientSeq);
    const payload = Buffer.from(new MessageText(text).encode()).toString("utf8");
    tell({ event: "sent", clientSeq, clientMsgNo, payload });
    await sending.catch(() => {});
  },
  async conversations() {
    const list = await sdk.conversationManager.sync();
    const rows = list.map((c) => ({
      channel: c.channel.channelID,
      type: c.channel.channelType,
      unread: c.unread,
      last: plain(c.lastMessage),
    }));
    tell({ event: "conversations", rows });
  },
  async messages({ peer, start, end, limit, mode }) {
    const opts = new SyncOptions();
    Object.assign(opts, { startMessageSeq: start, endMessageSeq: end, limit, pullMode: mode });
    const list = await sdk.chatManager.syncMessages(new Channel(peer, 1), opts);
    tell({ event: "messages", rows: list.map(plain) });
  },
  disconnect() {
    sdk.disconnect();
  },
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const order = JSON.parse(line);
    const failed = (error) => tell({ event: "fault", text: String(error?.stack ?? error) });
    Promise.resolve().then(() => orders[order.order](order)).catch(failed);
  })
  .on("close", () => process.exit(0));
