//! The gateway's domain logic, as pure functions and values.
//!
//! No HTTP, no SQL, no clock, no environment: everything here takes what it needs
//! as an argument and returns the same result for the same arguments.

pub mod action;
pub mod agent;
pub mod approval;
pub mod audit;
pub mod canon;
pub mod chain;
pub mod decision;
pub mod decode;
pub mod identifier;
pub mod json;
pub mod lifecycle;
pub mod operator;
pub mod policy;
pub mod receipt;
pub mod record;
pub mod replay;
pub mod restore;
pub mod signature;
pub mod time;
pub mod tool;
pub mod trust;

/// An enum whose variants are words of the wire contract and of the database.
///
/// Generates `as_str`, `parse` (exact, no case folding), `WORDS`, `Display` and `Serialize`,
/// so that each word is spelled in one place.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// Every word, in order.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The word on the wire and in the database.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }

            /// The variant spelled exactly like this.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some($name::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;
