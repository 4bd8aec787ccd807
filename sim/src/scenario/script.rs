//! Scripted clients: devices by name and what each does when.

use super::line::{Line, Span, Value, lines, made, words};

/// What a device does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    #[default]
    Connect,
    /// One message to `to`, with the key `no` (numbered if none is given).
    Send,
    /// Acknowledge what arrives (`on=off`: do not).
    Acks,
    Ping,
    /// The connection breaks.
    Cut,
    /// DISCONNECT.
    Bye,
    Garbage,
    /// Stop reading.
    Freeze,
    Thaw,
    /// Message sync of the channel with `to`.
    Sync,
    /// Conversation sync.
    Conversations,
}

words! {
    Action: "connect" = Action::Connect, "send" = Action::Send, "acks" = Action::Acks, "ping" = Action::Ping,
        "cut" = Action::Cut, "bye" = Action::Bye, "garbage" = Action::Garbage, "freeze" = Action::Freeze,
        "thaw" = Action::Thaw, "sync" = Action::Sync, "conversations" = Action::Conversations;
}

impl Value for String {
    fn parse(word: &str) -> Result<Self, String> {
        Ok(word.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

lines! {
    DeviceFields "device" {
        uid: String = String::new(),
        id: String = String::new(),
        flag: u8 = 0,
        version: u8 = 5,
        /// Which shard accepts its connections; 255 = any.
        shard: u8 = 255,
    }
}

/// A scripted device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceLine {
    pub name: String,
    pub fields: DeviceFields,
}

impl DeviceLine {
    /// # Errors
    /// What is wrong with the words.
    pub fn parse(words: &[&str]) -> Result<Self, String> {
        let (name, rest) = words.split_first().ok_or("device: its name?")?;
        let mut fields: DeviceFields = made(rest)?;
        if fields.uid.is_empty() {
            (*name).clone_into(&mut fields.uid);
        }
        Ok(Self { name: (*name).to_owned(), fields })
    }

    #[must_use]
    pub fn line(&self) -> String {
        self.fields.line().replacen("device", &format!("device {}", self.name), 1)
    }
}

lines! {
    StepFields "step" {
        to: String = String::new(),
        /// client_msg_no; a number is given to a message without one.
        no: String = String::new(),
        on: bool = true,
        bytes: u32 = 8,
        times: u32 = 1,
        start: u64 = 0,
        end: u64 = 0,
        limit: i64 = 100,
        up: bool = false,
    }
}

/// One scripted action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub at: Span,
    pub device: String,
    pub action: Action,
    pub fields: StepFields,
}

impl Step {
    /// # Errors
    /// What is wrong with the words.
    pub fn parse(words: &[&str]) -> Result<Self, String> {
        let [at, device, action, rest @ ..] = words else {
            return Err("at: a step is `at TIME DEVICE ACTION`".into());
        };
        Ok(Self {
            at: Span::parse(at)?,
            device: (*device).to_owned(),
            action: Action::parse(action)?,
            fields: made(rest)?,
        })
    }

    #[must_use]
    pub fn line(&self) -> String {
        let head = format!("at {} {} {}", self.at.show(), self.device, self.action.show());
        self.fields.line().replacen("step", &head, 1)
    }
}
