//! The JSON forms of a call and its result, shared by server and client.
//!
//! `POST /v1/call` takes `{"name": "crop", "arguments": {"image": "<hash or data URL>", ..}, "reply": "inline"}` and
//! answers `{"text", "data", "image": {"hash", "width", "height", "to_parent", "png"}, "answer"}` with status 200, or
//! `{"error": {"to": "for_model" | "fatal", "why": ..}}` with a status that fits.

use base64_simd::STANDARD;
use ocelli_data::ContentHash;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Affine, Fatal, Limits, Made, Picture, Reply, ToolError};

/// How a server answers with a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplyAs {
    /// PNG in base64 within the answer.
    #[default]
    Inline,
    /// Its hash alone; the bytes are fetched when somebody wants them.
    Hash,
}

/// Body of a call.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallBody {
    /// Tool.
    pub name: String,
    /// Its arguments; `image` is a content hash or a data URL.
    pub arguments: Map<String, Value>,
    /// How to answer with a picture.
    #[serde(default)]
    pub reply: ReplyAs,
}

/// A picture in an answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct WireImage {
    /// Name by content.
    pub hash: ContentHash,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// From its pixels to those of the picture that the call named, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_parent: Option<Affine>,
    /// PNG in base64, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub png: Option<String>,
}

/// A good answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReplyBody {
    /// For the policy.
    pub text: String,
    /// For programs.
    #[serde(default)]
    pub data: Value,
    /// The final answer, from `answer` alone.
    #[serde(default)]
    pub answer: Option<String>,
    /// A picture that was made; the last field, see [`ReplyBody::write`].
    #[serde(default)]
    pub image: Option<WireImage>,
}

/// A bad answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What happened.
    pub error: ToolError,
}

/// Answer to an upload.
#[derive(Debug, Serialize, Deserialize)]
pub struct Uploaded {
    /// Name by content.
    pub hash: ContentHash,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl ReplyBody {
    /// From a reply.
    pub fn of(reply: &Reply, reply_as: ReplyAs) -> Self {
        let image = reply.image.as_ref().map(|made| WireImage {
            hash: made.picture.hash(),
            width: made.picture.width(),
            height: made.picture.height(),
            to_parent: made.to_parent,
            png: (reply_as == ReplyAs::Inline).then(|| STANDARD.encode_to_string(made.picture.bytes())),
        });
        Self { text: reply.text.clone(), data: reply.data.clone(), answer: reply.answer.clone(), image }
    }

    /// The JSON of an answer. The picture's base64 is written straight into it: it is most of the bytes, and needs
    /// neither a string of its own nor a search for characters to escape.
    pub fn write(reply: &Reply, reply_as: ReplyAs) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec(&Self::of(reply, ReplyAs::Hash))?;
        if let Some(made) = reply.image.as_ref().filter(|_| reply_as == ReplyAs::Inline) {
            // The fields of the picture come last, so the text ends with its brace and that of the answer.
            let bytes = made.picture.bytes();
            json.truncate(json.len().saturating_sub(2));
            json.extend_from_slice(br#","png":""#);
            json.reserve_exact(bytes.len().div_ceil(3) * 4 + 3);
            STANDARD.encode_append(bytes, &mut json);
            json.extend_from_slice(br#""}}"#);
        }
        Ok(json)
    }

    /// Back to a reply. The picture's bytes must be there and must have the hash that the answer names.
    pub fn into_reply(self, limits: &Limits) -> Result<Reply, String> {
        let image = match self.image {
            None => None,
            Some(image) => {
                let png = image.png.ok_or("the answer names a picture but does not hold it")?;
                let picture = decode_picture(&png, limits)?;
                if picture.hash() != image.hash {
                    return Err(format!(
                        "the picture's bytes hash to {}, not to {}",
                        picture.hash(),
                        image.hash
                    ));
                }
                Some(Made { picture, to_parent: image.to_parent })
            }
        };
        Ok(Reply { text: self.text, data: self.data, image, answer: self.answer })
    }
}

/// A picture from base64, within limits.
pub(crate) fn decode_picture(base64: &str, limits: &Limits) -> Result<Picture, String> {
    if base64.len() / 4 * 3 > limits.image_bytes + 3 {
        return Err(format!("the picture has more than {} bytes", limits.image_bytes));
    }
    let bytes = STANDARD.decode_to_vec(base64).map_err(|e| format!("the picture is not base64: {e}"))?;
    Picture::new(bytes, limits).map_err(|e| e.to_string())
}

/// HTTP status for an error.
pub(crate) fn status(error: &ToolError) -> u16 {
    match error {
        ToolError::ForModel(_) => 422,
        ToolError::Fatal(Fatal::UnknownImage { .. }) => 404,
        ToolError::Fatal(Fatal::BadImage { .. }) => 400,
        ToolError::Fatal(Fatal::Busy { .. } | Fatal::Draining) => 503,
        ToolError::Fatal(Fatal::Deadline { .. }) => 504,
        ToolError::Fatal(_) => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_answer_is_that_of_the_struct() {
        let picture = Picture::encode(&image::RgbImage::new(5, 4)).unwrap();
        for (image, answer) in [
            (Some(Made { picture: picture.clone(), to_parent: Some(Affine::IDENTITY) }), None),
            (Some(Made { picture, to_parent: None }), Some("}} 7".to_owned())),
            (None, Some("7".to_owned())),
        ] {
            let reply =
                Reply { text: "a \"text\"".into(), data: serde_json::json!({"x": [1]}), image, answer };
            for reply_as in [ReplyAs::Inline, ReplyAs::Hash] {
                let written = ReplyBody::write(&reply, reply_as).unwrap();
                assert_eq!(written, serde_json::to_vec(&ReplyBody::of(&reply, reply_as)).unwrap());
            }
        }
    }
}
