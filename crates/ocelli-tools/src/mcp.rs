//! The server's Model Context Protocol side: the same tools over streamable HTTP and over standard input and output.
//!
//! The protocol knows no pictures of a dialogue. A call names its picture by content hash, as a data URL, or as the `img_k`
//! of a picture that the server was started with; those are listed as resources, too. The extra tool `upload_image`
//! takes bytes once and answers their hash, and every picture that a tool makes can be named by its hash.

use std::net::SocketAddr;
use std::sync::Arc;

use base64_simd::STANDARD;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, JsonObject,
    ListResourcesResult, ListToolsResult, MetaObject, PaginatedRequestParams, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, Resource, ResourceContents, ServerCapabilities,
    ServerConfig as McpConfig, Tool, ToolAnnotations,
};
use rmcp::service::{RequestContext, RoleServer, ServiceExt};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};

use crate::remote::{EXAMPLE, OURS, PLUMBING, TO_PARENT};
use crate::service::{Allowed, Service, ServiceConfig};
use crate::wire::{ReplyAs, ReplyBody, decode_picture};
use crate::{Deadline, Fatal, Picture, Registry, Reply, ToolError, ToolSpec};

const UPLOAD: &str = "upload_image";

/// One connection's view of the service.
#[derive(Clone)]
pub(crate) struct McpTools {
    service: Arc<Service>,
}

/// The HTTP service to be mounted.
pub(crate) fn http_service(
    service: Arc<Service>,
    address: SocketAddr,
    body: usize,
) -> StreamableHttpService<McpTools, LocalSessionManager> {
    let config = StreamableHttpServerConfig::default()
        // Nothing is kept between calls, so there are no sessions to lose.
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(body)
        .enforce_origin_validation();
    // Beyond loopback the token keeps strangers (and rebound names) out, and the host name is not known here.
    let config = if address.ip().is_loopback() { config } else { config.disable_allowed_hosts() };
    let make = move || Ok(McpTools { service: service.clone() });
    StreamableHttpService::new(make, Arc::new(LocalSessionManager::default()), config)
}

/// Serves one client over standard input and output, until it closes them.
pub async fn serve_stdio(registry: Registry, config: &ServiceConfig) -> Result<(), Fatal> {
    let service = Service::start(registry, config)?;
    let failed = |e: String| Fatal::Io(format!("standard input and output: {e}"));
    let message = crate::http::body_bytes(service.limits());
    let transport =
        AsyncRwTransport::new(tokio::io::stdin(), tokio::io::stdout()).with_max_line_length(message);
    let running = McpTools { service }.serve(transport).await.map_err(|e| failed(e.to_string()))?;
    running.waiting().await.map_err(|e| failed(e.to_string()))?;
    Ok(())
}

fn object(value: Value) -> Arc<JsonObject> {
    Arc::new(value.as_object().cloned().unwrap_or_default())
}

fn meta(key: &str, value: Value) -> MetaObject {
    let mut meta = MetaObject::new();
    meta.insert(key.to_owned(), value);
    meta
}

fn listed(spec: &ToolSpec, offered: usize) -> Tool {
    let mut schema = spec.parameters.clone();
    if let Some(image) = schema.pointer_mut("/properties/image") {
        let offered = match offered {
            0 => String::new(),
            1 => "img_0, which is there from the start; ".to_owned(),
            n => format!("img_0 to img_{}, which are there from the start; ", n - 1),
        };
        *image = json!({
            "type": "string",
            "description": format!(
                "Picture: {offered}the hash that {UPLOAD} or an earlier call answered; or a data URL \
                 (data:image/png;base64,...)."
            ),
        });
    }
    Tool::new(spec.name.clone(), spec.description.clone(), object(schema))
        .with_annotations(ToolAnnotations::new().read_only(true))
        .with_meta(meta(EXAMPLE, Value::Object(spec.example.clone())))
}

fn upload_tool() -> Tool {
    let schema = json!({
        "type": "object",
        "properties": {"data": {"type": "string", "description": "The picture's file in base64."}},
        "required": ["data"],
    });
    let description = "Store a picture and answer its content hash, by which calls can name it.";
    Tool::new(UPLOAD, description, object(schema)).with_meta(meta(PLUMBING, json!(true)))
}

/// Address of a picture as a resource.
const RESOURCE: &str = "ocelli://image/";

impl ServerHandler for McpTools {
    fn get_info(&self) -> McpConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        let mut info = McpConfig::new(capabilities);
        info.server_info = Implementation::new("ocelli-tools", env!("CARGO_PKG_VERSION"));
        info.instructions = Some(format!(
            "Vision tools. Name a picture as a tool's `image` argument says, or store one with {UPLOAD} and name it by \
             its hash; coordinates are pixels of the named picture."
        ));
        info
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, rmcp::ErrorData> {
        let offered = self.service.offered().len();
        let specs = self.service.registry().specs();
        let mut tools: Vec<Tool> = specs.iter().map(|s| listed(s, offered)).collect();
        tools.push(upload_tool());
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, rmcp::ErrorData> {
        let offered = self.service.offered().iter().enumerate();
        let resource = |(k, p): (usize, &Picture)| {
            Resource::new(format!("{RESOURCE}{}", p.hash()), format!("img_{k}"))
                .with_description(format!("Picture of {} x {} pixels.", p.width(), p.height()))
                .with_mime_type(p.mime())
                .with_size(p.bytes().len() as u64)
        };
        Ok(ListResourcesResult::with_all_items(offered.map(resource).collect()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, rmcp::ErrorData> {
        let hash = request.uri.strip_prefix(RESOURCE).and_then(|h| h.parse().ok());
        let picture = hash.and_then(|h| self.service.picture(h).ok());
        let Some(picture) = picture else {
            let why =
                format!("no picture is known as {RESOURCE}<hash>: it is not kept, or the address is another");
            return Err(rmcp::ErrorData::resource_not_found(why, None));
        };
        let contents = ResourceContents::blob(STANDARD.encode_to_string(picture.bytes()), request.uri)
            .with_mime_type(picture.mime());
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, rmcp::ErrorData> {
        let name = request.name.to_string();
        let arguments = request.arguments.unwrap_or_default();
        // The protocol has no word for how long a client waits, so a call may wait as long as it may run.
        let run = self.service.limits().call;
        let time = Allowed { run, whole: 2 * run };
        let tool = name.clone();
        let work = move |service: &Service, deadline: &Deadline| match name.as_str() {
            UPLOAD => upload(service, arguments.get("data").and_then(Value::as_str)),
            _ => service.run(&name, arguments, deadline).map(|reply| result(&reply)),
        };
        let outcome = tokio::select! {
            outcome = self.service.queued(&tool, time, work) => outcome.map(|(done, _)| done),
            // The client took the call back: dropping it makes the tool stop at its next check.
            () = context.ct.cancelled() => Err(Fatal::Deadline { tool: tool.clone() }),
        };
        let answered = match outcome.map_err(ToolError::from).and_then(|inner| inner) {
            Ok(result) => result,
            Err(error) => {
                let mut result = CallToolResult::error(vec![ContentBlock::text(error.to_string())]);
                result.structured_content = Some(json!({ "error": error }));
                result.meta = Some(meta(OURS, json!(true)));
                result
            }
        };
        Ok(answered.into())
    }
}

fn upload(service: &Service, data: Option<&str>) -> Result<CallToolResult, ToolError> {
    let data =
        data.ok_or_else(|| crate::error::for_model("argument `data` (the file in base64) is missing"))?;
    let picture = decode_picture(data, service.limits()).map_err(crate::error::for_model)?;
    let picture = service.upload(picture.bytes().to_vec())?;
    let (hash, width, height) = (picture.hash(), picture.width(), picture.height());
    let mut result =
        CallToolResult::success(vec![ContentBlock::text(format!("{hash} ({width} x {height} pixels)"))]);
    result.structured_content = Some(json!({"hash": hash, "width": width, "height": height}));
    Ok(result)
}

fn result(reply: &Reply) -> CallToolResult {
    let mut text = reply.text.clone();
    let mut content = Vec::new();
    if let Some(made) = &reply.image {
        let p = &made.picture;
        text.push_str(&format!("\nNew picture {}: {} x {} pixels.", p.hash(), p.width(), p.height()));
        content.push(ContentBlock::image(STANDARD.encode_to_string(p.bytes()), "image/png"));
    }
    content.insert(0, ContentBlock::text(text));
    let mut result = CallToolResult::success(content);
    result.structured_content = serde_json::to_value(ReplyBody::of(reply, ReplyAs::Hash)).ok();
    let mut marks = meta(OURS, json!(true));
    if let Some(map) = reply.image.as_ref().and_then(|made| made.to_parent) {
        marks.insert(TO_PARENT.to_owned(), json!(map));
    }
    result.meta = Some(marks);
    result
}
