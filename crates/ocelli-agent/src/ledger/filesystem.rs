//! On which file system a path lies, from `/proc/self/mountinfo`; nothing is known where that file is absent.

use std::path::{Path, PathBuf};

use ocelli_data::io::read_bounded;

/// File systems on which several machines see the same file.
const NETWORK: [&str; 12] =
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "ceph", "beegfs", "afs", "9p", "fuse.sshfs"];

/// The type of the network file system that holds `path`, if it is one.
pub(super) fn network_kind(path: &Path) -> Option<String> {
    let bytes = read_bounded(Path::new("/proc/self/mountinfo"), 4 << 20).ok()?;
    let path = std::path::absolute(path).ok()?;
    let path = path.parent()?.canonicalize().ok()?;
    let kind = kind_at(&String::from_utf8_lossy(&bytes), &path)?;
    NETWORK.contains(&kind.as_str()).then_some(kind)
}

/// Type of the mount with the longest path above `path`; of equal ones the last, which covers the others.
fn kind_at(mountinfo: &str, path: &Path) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    for line in mountinfo.lines() {
        // 36 35 98:0 /root /mount options [optional fields] - type source options   (proc(5))
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let (Some(mount), Some(kind)) = (before.split(' ').nth(4), after.split(' ').next()) else { continue };
        let mount = PathBuf::from(mount.replace("\\040", " "));
        let depth = mount.components().count();
        if path.starts_with(&mount) && best.as_ref().is_none_or(|(d, _)| depth >= *d) {
            best = Some((depth, kind.to_owned()));
        }
    }
    best.map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_decides() {
        let info = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n\
                    40 22 0:35 / /home rw shared:5 - nfs4 srv:/home rw\n\
                    41 40 0:36 / /home/a\\040b rw - tmpfs tmpfs rw\n";
        let kind = |p: &str| kind_at(info, Path::new(p));
        assert_eq!(kind("/var/x").as_deref(), Some("ext4"));
        assert_eq!(kind("/home/me").as_deref(), Some("nfs4"));
        assert_eq!(kind("/homework").as_deref(), Some("ext4"));
        assert_eq!(kind("/home/a b/c").as_deref(), Some("tmpfs"));
    }
}
