//! nginx, set up for static files as its users would: one worker, sendfile, tcp_nopush, open files kept, no access log.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::Running;

/// A configuration that serves `folder` at `listen`, with nginx's own files in `work`. `daemon`: `on` or `off`.
pub fn configuration(daemon: &str, folder: &str, work: &str, listen: &str) -> String {
    format!(
        "daemon {daemon}; master_process off; worker_processes 1; pid {work}/pid; error_log {work}/error.log;
events {{ worker_connections 10000; multi_accept on; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; default_type application/octet-stream;
  keepalive_requests 1000000000; keepalive_timeout 600s;
  open_file_cache max=1000 inactive=600s; open_file_cache_valid 600s;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  server {{ listen {listen} reuseport; root {folder}; }}
}}
"
    )
}

/// Starts nginx by this command, which wants no more than its arguments, serving `folder`; `work` is for its own files.
pub fn start(mut command: Command, folder: &Path, work: &Path, address: SocketAddr) -> Result<Running> {
    let path = work.join("nginx.conf");
    let (folder, work) = (folder.display().to_string(), work.display().to_string());
    fs::write(&path, configuration("off", &folder, &work, &address.to_string()))?;
    command.arg("-c").arg(&path);
    Running::start("nginx (Debian package nginx-light)", &mut command)
}
