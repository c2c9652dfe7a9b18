//! Vision tools with one declaration each, the pictures of a dialogue with their coordinate frames, and the ways to
//! call a tool: in this process, from another, and over the network.
//!
//! ```
//! use std::time::Duration;
//! use ocelli_data::ToolCall;
//! use ocelli_tools::{Deadline, Images, Limits, Picture, Registry};
//!
//! let registry = Registry::standard(Limits::default());
//! let mut images = Images::new(registry.limits().clone());
//! let white = Picture::encode(&image::RgbImage::from_pixel(40, 30, image::Rgb([255; 3])))?;
//! images.insert_picture(white)?; // img_0
//!
//! let arguments = serde_json::json!({"image": "img_0", "bbox": [10, 5, 20, 25]});
//! let call = ToolCall { id: String::new(), name: "crop".into(), arguments: arguments.as_object().unwrap().clone() };
//! let reply = registry.run(&call, &images, &Deadline::after(Duration::from_secs(5)))?;
//! let result = images.accept("crop", "", Some("img_0"), reply);
//!
//! assert_eq!(images.len(), 2);
//! let made = images.get(1).unwrap();
//! assert_eq!((made.picture.width(), made.picture.height()), (10, 20));
//! // The way back: the new picture's corner is (10, 5) of the old one.
//! assert_eq!(made.origin.unwrap().to_root.apply(0.0, 0.0), (10.0, 5.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod affine;
mod arguments;
mod axis;
mod cache;
mod circuit;
mod client;
mod colors;
mod describe;
mod detector;
mod draw;
mod engines;
mod error;
mod http;
mod images;
mod limits;
mod mcp;
pub mod networks;
pub mod ocr;
mod panels;
mod picture;
mod png_writer;
mod pool;
mod regions;
mod registry;
mod remote;
mod segmentation;
mod service;
mod tool;
pub mod tools;
pub mod wire;
mod workers;

pub use affine::Affine;
pub use cache::{Cache, Kept};
pub use client::{CallTime, Client, Endpoint, Timed};
pub use draw::{Color, ColorName};
pub use engines::{Engines, EnginesConfig, OcrNetwork};
pub use error::{Fatal, ToolError};
pub use http::{DEADLINE_HEADER, Server, ServerConfig, WAIT_HEADER, WAITED_HEADER};
pub use images::{Entry, Images, ImagesError, Made, Origin};
pub use limits::Limits;
pub use mcp::serve_stdio;
pub use picture::{Picture, PictureError};
pub use registry::Registry;
pub use remote::{McpEndpoint, PictureAs, RemoteConfig, RemoteTools};
pub use service::{Health, Service, ServiceConfig};
pub use tool::{Bbox, Call, Deadline, Declared, Effort, ImageRef, PixelBox, Reply, Tool, ToolSpec};
