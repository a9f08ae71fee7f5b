//! A tool call in a request body: at the top level, or as a member.

use serde::Deserialize;

use crate::domain::action::ToolCall;
use crate::domain::json::Json;

/// Most characters in the name of a tool, an action or a trust level.
pub(super) const NAME_CHARS_MAX: usize = 512;
/// Most characters in a resource.
const RESOURCE_CHARS_MAX: usize = 8192;

/// A call without its parameters, which are taken unchanged from the JSON tree.
#[derive(Deserialize)]
pub(super) struct CallPart {
    tool: String,
    action: String,
    resource: Option<String>,
    mutates_state: bool,
}

impl CallPart {
    /// Completes the call with the parameters in `tree`; the error says what is wrong.
    pub(super) fn into_call(self, mut tree: Json) -> Result<ToolCall, String> {
        let CallPart { tool, action, resource, mutates_state } = self;
        let parameters = tree.take("parameters").ok_or("missing field `parameters`")?;
        for (name, text, max) in [
            ("tool", Some(&tool), NAME_CHARS_MAX),
            ("action", Some(&action), NAME_CHARS_MAX),
            ("resource", resource.as_ref(), RESOURCE_CHARS_MAX),
        ] {
            // Any characters are allowed: a resource may be a query of several lines.
            if text.is_some_and(|text| text.chars().count() > max) {
                return Err(format!("{name} must have at most {max} characters"));
            }
        }
        if tool.is_empty() || action.is_empty() {
            return Err("tool and action must not be empty".to_owned());
        }
        Ok(ToolCall { tool, action, resource, mutates_state, parameters })
    }
}
