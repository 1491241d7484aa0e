//! A container image without a registry: Debian's static busybox in an archive as `docker save` writes it.

use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What containers run, and serve: `httpd -f -h /www`.
pub const IMAGE: &str = "localhost/bb:1";
/// What does nothing: a pod's first container.
pub const PAUSE: &str = "localhost/pause:1";
/// What a container fetches from another.
pub const PAGE: &str = "it is me";
const APPLETS: [&str; 7] = ["sh", "ping", "sleep", "ip", "wget", "httpd", "ls"];

/// Makes an archive with both images in `directory`.
pub fn archive(directory: &Path) -> PathBuf {
    let parts = directory.join("image");
    let root = directory.join("image-root");
    std::fs::create_dir_all(&parts).unwrap();
    for directory in ["bin", "etc", "tmp", "www"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    APPLETS.iter().for_each(|applet| symlink("busybox", root.join("bin").join(applet)).unwrap());
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
    std::fs::write(root.join("www/index.html"), format!("{PAGE}\n")).unwrap();
    tar(&root, &parts.join("layer.tar"));
    let digest = run(Command::new("sha256sum").arg(parts.join("layer.tar")));
    let digest = format!("sha256:{}", digest.split_whitespace().next().unwrap());
    let write = |name: &str, value: Value| std::fs::write(parts.join(name), value.to_string()).unwrap();
    let config = |config: Value| {
        let root = json!({"type": "layers", "diff_ids": [digest]});
        json!({"architecture": "amd64", "os": "linux", "config": config, "rootfs": root})
    };
    write("bb.json", config(json!({"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]})));
    write("pause.json", config(json!({"Env": ["PATH=/bin"], "Entrypoint": ["/bin/sleep", "1000000"]})));
    let entry =
        |config: &str, tag: &str| json!({"Config": config, "RepoTags": [tag], "Layers": ["layer.tar"]});
    write("manifest.json", json!([entry("bb.json", IMAGE), entry("pause.json", PAUSE)]));
    let archive = directory.join("image.tar");
    tar(&parts, &archive);
    archive
}

fn tar(directory: &Path, archive: &Path) {
    run(Command::new("tar").arg("-C").arg(directory).arg("-cf").arg(archive).arg("."));
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
