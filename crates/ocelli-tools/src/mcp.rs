//! The server's Model Context Protocol side: the same tools over streamable HTTP and over standard input and output.
//!
//! The protocol knows no pictures of a dialogue, so a picture is named by its content hash or given as a data URL. The
//! extra tool `upload_image` takes bytes once and answers their hash.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, JsonObject,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig as McpConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer, ServiceExt};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};

use crate::service::{Service, ServiceConfig};
use crate::wire::{ReplyAs, ReplyBody, decode_picture};
use crate::{Deadline, Fatal, Registry, Reply, ToolError, ToolSpec};

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
    let running = McpTools { service }
        .serve((tokio::io::stdin(), tokio::io::stdout()))
        .await
        .map_err(|e| failed(e.to_string()))?;
    running.waiting().await.map_err(|e| failed(e.to_string()))?;
    Ok(())
}

fn object(value: Value) -> Arc<JsonObject> {
    Arc::new(value.as_object().cloned().unwrap_or_default())
}

fn listed(spec: &ToolSpec) -> Tool {
    let mut schema = spec.parameters.clone();
    if let Some(image) = schema.pointer_mut("/properties/image") {
        *image = json!({
            "type": "string",
            "description": format!(
                "Picture: the hash that {UPLOAD} or an earlier call answered, or a data URL (data:image/png;base64,...)."
            ),
        });
    }
    Tool::new(spec.name.clone(), spec.description.clone(), object(schema))
}

fn upload_tool() -> Tool {
    let schema = json!({
        "type": "object",
        "properties": {"data": {"type": "string", "description": "The picture's file in base64."}},
        "required": ["data"],
    });
    Tool::new(
        UPLOAD,
        "Store a picture and answer its content hash, by which calls can name it.",
        object(schema),
    )
}

impl ServerHandler for McpTools {
    fn get_info(&self) -> McpConfig {
        let mut info = McpConfig::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info = Implementation::new("ocelli-tools", env!("CARGO_PKG_VERSION"));
        info.instructions = Some(format!(
            "Vision tools. Upload a picture once with {UPLOAD}, then name it by its hash; coordinates are pixels of \
             the named picture."
        ));
        info
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, rmcp::ErrorData> {
        let mut tools: Vec<Tool> = self.service.registry().specs().iter().map(listed).collect();
        tools.push(upload_tool());
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, rmcp::ErrorData> {
        let name = request.name.to_string();
        let arguments = request.arguments.unwrap_or_default();
        let deadline = Deadline::after(self.service.limits().call);
        let tool = name.clone();
        let work = move |service: &Service, deadline: &Deadline| match name.as_str() {
            UPLOAD => upload(service, arguments.get("data").and_then(Value::as_str)),
            _ => service.run(&name, arguments, deadline).map(|reply| result(&reply)),
        };
        let outcome = self.service.queued(&tool, &deadline, work).await;
        let answered = match outcome.map_err(ToolError::from).and_then(|inner| inner) {
            Ok(result) => result,
            Err(error) => {
                let mut result = CallToolResult::error(vec![ContentBlock::text(error.to_string())]);
                result.structured_content = Some(json!({ "error": error }));
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
        content.push(ContentBlock::image(STANDARD.encode(p.bytes()), "image/png"));
    }
    content.insert(0, ContentBlock::text(text));
    let mut result = CallToolResult::success(content);
    result.structured_content = serde_json::to_value(ReplyBody::of(reply, ReplyAs::Hash)).ok();
    result
}
