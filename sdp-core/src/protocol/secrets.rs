//! The only places where secrets are written to, and read from, the wire.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
    ser::SerializeStruct,
};

use crate::model::{credentials::Credentials, names::UserName};

/// [`Credentials`] in a frame. Serialises the password; `Debug` does not show it.
#[derive(Debug, Clone)]
pub struct CredentialsFrame(pub Credentials);

impl PartialEq for CredentialsFrame {
    fn eq(&self, other: &Self) -> bool {
        self.0.username() == other.0.username() && self.0.expose_password() == other.0.expose_password()
    }
}

impl Eq for CredentialsFrame {}

impl Serialize for CredentialsFrame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Credentials", 2)?;
        fields.serialize_field("username", self.0.username())?;
        fields.serialize_field("password", self.0.expose_password())?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for CredentialsFrame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            username: UserName,
            password: TokenFrame,
        }
        /// Only fields with their names: a list would do otherwise.
        struct Named;

        impl<'de> Visitor<'de> for Named {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a username and a password")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Fields, A::Error> {
                Fields::deserialize(MapAccessDeserializer::new(map))
            }
        }
        let fields = deserializer.deserialize_map(Named)?;
        Ok(Self(Credentials::new(fields.username, fields.password.0)))
    }
}

/// A token in a frame or in an answer. Serialises it; `Debug` does not show it.
#[derive(Clone)]
pub struct TokenFrame(pub SecretString);

impl fmt::Debug for TokenFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenFrame(…)")
    }
}

impl PartialEq for TokenFrame {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Eq for TokenFrame {}

impl Serialize for TokenFrame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}

impl<'de> Deserialize<'de> for TokenFrame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(SecretString::from(text)))
    }
}
