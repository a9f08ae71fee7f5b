//! Decodes a parsed [`Json`] value into a typed request with `serde`.
//!
//! Decoding the parsed tree instead of the bytes ensures a single reading of every
//! body: the call that is hashed is the call that is decided.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::json::Json;

/// Why a value does not fit the type; names the member where possible.
pub type Error = serde::de::value::Error;

/// Decodes `value` as a `T`.
pub fn decode<T: DeserializeOwned>(value: &Json) -> Result<T, Error> {
    T::deserialize(Tree(value))
}

struct Tree<'a>(&'a Json);

impl<'de> IntoDeserializer<'de> for Tree<'_> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Tree<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Json::Null => visitor.visit_unit(),
            Json::Bool(value) => visitor.visit_bool(*value),
            Json::Number(number) => {
                let text = number.as_str();
                if let Ok(integer) = text.parse::<i64>() {
                    return visitor.visit_i64(integer);
                }
                match text.parse::<f64>() {
                    Ok(float) => visitor.visit_f64(float),
                    Err(error) => Err(serde::de::Error::custom(error)),
                }
            }
            Json::String(text) => visitor.visit_str(text),
            Json::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Tree))),
            Json::Object(members) => visitor.visit_map(MapDeserializer::new(
                members.iter().map(|(name, value)| (name.as_str(), Tree(value))),
            )),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Json::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Json::String(text) => text.as_str().into_deserializer().deserialize_enum(name, variants, visitor),
            _ => Err(serde::de::Error::custom(format!("expected one of {variants:?}"))),
        }
    }

    /// Requires an object: serde would also accept an array and fill the fields by position.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Json::Array(_) => Err(serde::de::Error::invalid_type(Unexpected::Seq, &"an object")),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string
        bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::parse;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Sample {
        name: String,
        count: Option<u32>,
        tags: Vec<String>,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        FirstKind,
    }

    fn read(text: &str) -> Result<Sample, String> {
        decode(&parse(text.as_bytes()).expect("JSON")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_body_becomes_its_type() {
        let sample = read(r#"{"name":"n","count":null,"tags":["a"],"kind":"first_kind","more":{}}"#);
        let expected =
            Sample { name: "n".into(), count: None, tags: vec!["a".into()], kind: Kind::FirstKind };
        assert_eq!(sample, Ok(expected));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let missing = read(r#"{"count":1,"tags":[],"kind":"first_kind"}"#).expect_err("no name");
        assert!(missing.contains("`name`"), "{missing}");
        let negative = read(r#"{"name":"n","count":-1,"tags":[],"kind":"first_kind"}"#);
        assert!(negative.is_err());
        let unknown = read(r#"{"name":"n","tags":[],"kind":"x"}"#).expect_err("unknown kind");
        assert!(unknown.contains("first_kind"), "{unknown}");
    }

    #[test]
    fn an_array_is_no_object_whose_names_were_left_out() {
        let refused = read(r#"["n",null,["a"],"first_kind"]"#).expect_err("no object");
        assert!(refused.contains("an object"), "{refused}");
    }
}
