//! The types of field values: text, word, flag, count, or invalid.

use std::{borrow::Cow, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// The value of a field.
pub(in crate::transcript) enum Found<T> {
    Value(T),
    /// `null`.
    Nothing,
    /// A value of an invalid type.
    Odd,
}

/// A type of field value. Any value that the type does not accept is [`Found::Odd`].
pub(in crate::transcript) trait Kind<'a>: Sized {
    fn text(_: Cow<'a, str>) -> Found<Self> {
        Found::Odd
    }

    fn flag(_: bool) -> Found<Self> {
        Found::Odd
    }

    fn number(_: Number) -> Found<Self> {
        Found::Odd
    }

    fn list<A: SeqAccess<'a>>(mut list: A) -> Result<Found<Self>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Odd)
    }

    fn object<A: MapAccess<'a>>(mut object: A) -> Result<Found<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::Odd)
    }

    /// Reads the value of the key that was read last.
    fn next<A: MapAccess<'a>>(object: &mut A) -> Result<Found<Self>, A::Error> {
        object.next_value_seed(Any(PhantomData))
    }

    /// Moves the names of its own invalid fields to `odd`.
    fn move_odd(&mut self, _odd: &mut Vec<&'static str>) {}
}

/// A JSON number.
pub(in crate::transcript) enum Number {
    Natural(u64),
    Negative(i64),
    Broken(f64),
}

pub(super) struct Any<T>(pub(super) PhantomData<T>);

impl<'a, T: Kind<'a>> DeserializeSeed<'a> for Any<T> {
    type Value = Found<T>;
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a, T: Kind<'a>> Visitor<'a> for Any<T> {
    type Value = Found<T>;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Found::Nothing)
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(T::flag(flag))
    }
    fn visit_u64<E>(self, n: u64) -> Result<Self::Value, E> {
        Ok(T::number(Number::Natural(n)))
    }
    fn visit_i64<E>(self, n: i64) -> Result<Self::Value, E> {
        Ok(T::number(Number::Negative(n)))
    }
    fn visit_f64<E>(self, n: f64) -> Result<Self::Value, E> {
        Ok(T::number(Number::Broken(n)))
    }
    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Self::Value, E> {
        Ok(T::text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(T::text(Cow::Owned(text.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'a>>(self, list: A) -> Result<Self::Value, A::Error> {
        T::list(list)
    }
    fn visit_map<A: MapAccess<'a>>(self, object: A) -> Result<Self::Value, A::Error> {
        T::object(object)
    }
}

/// A complete JSON text of any type.
pub(in crate::transcript) struct Whole<T>(pub(in crate::transcript) Found<T>);

impl<'a, T: Kind<'a>> Deserialize<'a> for Whole<T> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any(PhantomData)).map(Self)
    }
}

/// Parses `raw`; `None` if it is invalid.
pub(in crate::transcript) fn read<'a, T: Kind<'a>>(raw: &'a str) -> Option<T> {
    match serde_json::from_str(raw) {
        Ok(Whole(Found::Value(value))) => Some(value),
        _ => None,
    }
}

/// Text, or a number as written: ids and versions may be numbers.
#[derive(Debug, Default)]
pub(crate) struct Text<'a>(pub(in crate::transcript) Cow<'a, str>);

impl Text<'_> {
    pub(crate) fn into_owned(self) -> String {
        self.0.into_owned()
    }
}

impl<'a> Kind<'a> for Text<'a> {
    fn text(text: Cow<'a, str>) -> Found<Self> {
        Found::Value(Self(text))
    }

    fn number(n: Number) -> Found<Self> {
        Found::Value(Self(Cow::Owned(match n {
            Number::Natural(n) => n.to_string(),
            Number::Negative(n) => n.to_string(),
            Number::Broken(n) => n.to_string(),
        })))
    }
}

/// For reading a single field of a line. Tolerates lone surrogates and bytes that are not UTF-8.
impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsText;
        impl<'de> Visitor<'de> for AsText {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Text<'de>, E> {
                Ok(Text(String::from_utf8_lossy(bytes)))
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(String::from_utf8_lossy(bytes).into_owned())))
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_bytes(AsText)
    }
}

/// A string that names something; nothing else is accepted.
pub(in crate::transcript) struct Word<'a>(pub(in crate::transcript) Cow<'a, str>);

impl Word<'_> {
    pub(in crate::transcript) fn into_owned(self) -> String {
        self.0.into_owned()
    }
}

impl<'a> Kind<'a> for Word<'a> {
    fn text(text: Cow<'a, str>) -> Found<Self> {
        Found::Value(Self(text))
    }
}

/// A boolean in any form that JSON writers use.
#[derive(Clone, Copy)]
pub(in crate::transcript) struct Flag(pub(in crate::transcript) bool);

impl<'a> Kind<'a> for Flag {
    fn text(text: Cow<'a, str>) -> Found<Self> {
        match text.as_ref() {
            "true" | "1" => Found::Value(Self(true)),
            "false" | "0" | "" => Found::Value(Self(false)),
            _ => Found::Odd,
        }
    }

    fn flag(flag: bool) -> Found<Self> {
        Found::Value(Self(flag))
    }

    fn number(n: Number) -> Found<Self> {
        match n {
            Number::Natural(n @ 0..=1) => Found::Value(Self(n == 1)),
            _ => Found::Odd,
        }
    }
}

/// A count, possibly written as a float or string. Negative or huge values are invalid.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::transcript) struct Count(pub(in crate::transcript) u64);

impl Count {
    fn of(n: f64) -> Found<Self> {
        // The comparison is exact because 2^63 is representable as a float.
        if (0.0..i64::MAX as f64).contains(&n) { Found::Value(Self(n as u64)) } else { Found::Odd }
    }
}

impl<'a> Kind<'a> for Count {
    fn text(text: Cow<'a, str>) -> Found<Self> {
        let text = text.trim();
        match text.parse::<u64>() {
            Ok(n) => Self::number(Number::Natural(n)),
            Err(_) if text.is_empty() => Found::Nothing,
            Err(_) => text.parse().map_or(Found::Odd, Self::of),
        }
    }

    fn number(n: Number) -> Found<Self> {
        match n {
            Number::Natural(n) if i64::try_from(n).is_ok() => Found::Value(Self(n)),
            Number::Natural(_) | Number::Negative(_) => Found::Odd,
            Number::Broken(n) => Self::of(n),
        }
    }
}

/// Any value, as written.
#[derive(Clone, Copy)]
pub(in crate::transcript) struct Raw<'a>(pub(in crate::transcript) &'a str);

impl<'a> Kind<'a> for Raw<'a> {
    fn next<A: MapAccess<'a>>(object: &mut A) -> Result<Found<Self>, A::Error> {
        let raw: &'a RawValue = object.next_value()?;
        Ok(if raw.get() == "null" { Found::Nothing } else { Found::Value(Self(raw.get())) })
    }
}
