//! JSON input as the reference takes it (http-api 2.2): member names in any case, `null` as the zero value, integers
//! that fit their width, nothing else.

use super::answer::Failed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// The members of a request body.
#[derive(Clone, Debug, Default)]
pub struct Members(Map<String, Value>);

fn wrong(name: &str, wanted: &str) -> Failed {
    Failed::new(format!("{name} must be {wanted}"))
}

impl Members {
    /// # Errors
    /// The body is empty, not JSON, or not an object.
    pub fn parse(body: &[u8]) -> Result<Self, Failed> {
        if body.is_empty() {
            return Err(Failed::new("the body is empty; a JSON object is expected"));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            Ok(Value::Null) => Ok(Self::default()),
            Ok(_) => Err(Failed::new("the body must be a JSON object")),
            Err(e) => Err(Failed::new(format!("the body is not valid JSON: {e}"))),
        }
    }

    /// A member that is there and not null; an exact name goes before one in another case.
    fn get(&self, name: &str) -> Option<&Value> {
        let found = self.0.get(name).or_else(|| {
            let same = |(key, _): &(&String, &Value)| key.eq_ignore_ascii_case(name);
            self.0.iter().find(same).map(|(_, value)| value)
        });
        found.filter(|value| !value.is_null())
    }

    pub fn text(&self, name: &str) -> Result<String, Failed> {
        match self.get(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(wrong(name, "a string")),
        }
    }

    /// A text that is not blank.
    pub fn needed(&self, name: &str) -> Result<String, Failed> {
        let text = self.text(name)?;
        if text.trim().is_empty() { Err(Failed::new(format!("{name} is required"))) } else { Ok(text) }
    }

    pub fn i64(&self, name: &str) -> Result<i64, Failed> {
        match self.get(name) {
            None => Ok(0),
            Some(value) => value.as_i64().ok_or_else(|| wrong(name, "an integer")),
        }
    }

    pub fn u64(&self, name: &str) -> Result<u64, Failed> {
        match self.get(name) {
            None => Ok(0),
            Some(value) => value.as_u64().ok_or_else(|| wrong(name, "an integer of 0 or more")),
        }
    }

    pub fn u8(&self, name: &str) -> Result<u8, Failed> {
        u8::try_from(self.u64(name)?).map_err(|_| wrong(name, "an integer from 0 to 255"))
    }

    /// Numbers from 0 to 255, as an array or as base64 of the bytes.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, Failed> {
        let bad = || wrong(name, "an array of integers from 0 to 255");
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => STANDARD.decode(text).map_err(|_| bad()),
            Some(Value::Array(list)) => {
                list.iter().map(|v| v.as_u64().and_then(|n| u8::try_from(n).ok()).ok_or_else(bad)).collect()
            }
            Some(_) => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Members {
        Members::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn names_match_in_any_case_and_exact_ones_go_first() {
        let m = members(r#"{"UID":"other","uid":"exact","LIMIT":3}"#);
        assert_eq!(m.text("uid").unwrap(), "exact");
        assert_eq!(m.i64("limit").unwrap(), 3);
        assert_eq!(members(r#"{"Uid":"u"}"#).text("uid").unwrap(), "u");
        assert_eq!(members(r#"{"uid":null,"UID":"x"}"#).text("uid").unwrap(), "");
    }

    #[test]
    fn null_and_absent_are_zero() {
        for text in [r#"{"a":null}"#, "{}", "null", r#"{"unknown":[{}]}"#] {
            let m = members(text);
            assert_eq!((m.text("a").unwrap(), m.i64("a").unwrap(), m.u64("a").unwrap()), (String::new(), 0, 0));
            assert_eq!((m.u8("a").unwrap(), m.bytes("a").unwrap()), (0, vec![]));
            assert!(m.needed("a").is_err());
        }
        assert!(members(r#"{"a":" \t"}"#).needed("a").is_err());
    }

    #[test]
    fn types_are_not_bent() {
        for value in ["300", "-1", "1.5", "1.0", "1e3", "\"1\"", "true", "[]", "{}", "99999999999999999999"] {
            assert!(members(&format!(r#"{{"a":{value}}}"#)).u8("a").is_err(), "{value}");
        }
        for value in ["1", "true", "[]"] {
            assert!(members(&format!(r#"{{"a":{value}}}"#)).text("a").is_err(), "{value}");
        }
        assert_eq!(members(r#"{"a":-9223372036854775808}"#).i64("a").unwrap(), i64::MIN);
        assert_eq!(members(r#"{"a":18446744073709551615}"#).u64("a").unwrap(), u64::MAX);
        assert!(members(r#"{"a":9223372036854775808}"#).i64("a").is_err());
        assert_eq!(members(r#"{"a":[1,255]}"#).bytes("a").unwrap(), [1, 255]);
        assert_eq!(members(r#"{"a":"Af8="}"#).bytes("a").unwrap(), [1, 255]);
        assert!(members(r#"{"a":[256]}"#).bytes("a").is_err());
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for text in ["", " ", "[]", "1", "{", "{\"a\":}", "\u{FEFF}{}"] {
            assert!(Members::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
