//! What xenstored keeps: values by path, who wants to hear of changes, and transactions.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A value, and when it was last changed.
#[derive(Clone, Debug, Default)]
struct Node {
    value: Vec<u8>,
    generation: u64,
}

/// Values by absolute path. Whatever lies above a node exists too.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
    /// Of the last change.
    generation: u64,
}

/// The path above, if there is one.
fn parent(path: &str) -> Option<&str> {
    let (parent, _) = path.rsplit_once('/')?;
    (!parent.is_empty()).then_some(parent)
}

impl Tree {
    pub fn read(&self, path: &str) -> Option<&[u8]> {
        self.nodes.get(path).map(|node| &node.value[..])
    }

    /// When the node was last changed; 0 if there is none.
    pub fn generation(&self, path: &str) -> u64 {
        self.nodes.get(path).map_or(0, |node| node.generation)
    }

    fn touch(&mut self, path: &str) {
        self.generation += 1;
        if let Some(node) = self.nodes.get_mut(path) {
            node.generation = self.generation;
        }
    }

    pub fn write(&mut self, path: &str, value: &[u8]) {
        if !self.nodes.contains_key(path)
            && let Some(parent) = parent(path)
        {
            if !self.nodes.contains_key(parent) {
                self.write(parent, b"");
            }
            self.touch(parent);
        }
        self.generation += 1;
        self.nodes.insert(path.to_string(), Node { value: value.to_vec(), generation: self.generation });
    }

    /// Removes a node with all below it, and says which they were, the node itself first.
    pub fn remove(&mut self, path: &str) -> Vec<String> {
        let below = format!("{path}/");
        let inside = |name: &String| name == path || name.starts_with(&below);
        let removed: Vec<String> =
            self.nodes.range(path.to_string()..).map(|(name, _)| name).filter(|name| inside(name)).cloned().collect();
        for name in &removed {
            self.nodes.remove(name);
        }
        if let Some(parent) = parent(path).filter(|_| !removed.is_empty()) {
            self.touch(parent);
        }
        removed
    }

    /// The names of a node's children.
    pub fn directory(&self, path: &str) -> Option<Vec<&str>> {
        self.nodes.get(path)?;
        let below = format!("{path}/");
        let names = self.nodes.range(below.clone()..).map_while(|(name, _)| name.strip_prefix(&below));
        Some(names.filter(|name| !name.contains('/')).collect())
    }
}

/// A change that watches are told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Written(String),
    /// The node and what lay below it.
    Removed(Vec<String>),
}

/// Somebody wants to hear of changes at and below a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watch {
    /// Absolute.
    pub path: String,
    /// What the paths in events are told without: nothing, or the home with its slash.
    pub prefix: String,
    pub token: Vec<u8>,
}

impl Watch {
    /// The paths that it is told for this change.
    pub fn events(&self, change: &Change) -> Vec<String> {
        let is_above = |path: &String| path.strip_prefix(&self.path).is_some_and(|rest| rest.starts_with('/'));
        let paths: Vec<&String> = match change {
            Change::Written(path) => [path].into_iter().filter(|path| **path == self.path || is_above(path)).collect(),
            Change::Removed(paths) => {
                let (root, below) = paths.split_first().expect("something was removed");
                let hit = below.iter().filter(|path| **path == self.path);
                [root].into_iter().filter(|root| **root == self.path || is_above(root)).chain(hit).collect()
            }
        };
        paths.into_iter().map(|path| self.told(path)).collect()
    }

    /// A path as the watch names it.
    pub fn told(&self, path: &str) -> String {
        path.strip_prefix(&self.prefix).unwrap_or(path).to_string()
    }
}

/// What a transaction has seen and changed.
#[derive(Debug)]
pub(super) struct Transaction {
    tree: Tree,
    /// Nodes that were looked at or changed, with their generations at the transaction's start.
    touched: BTreeMap<String, u64>,
    changes: Vec<(String, Option<Vec<u8>>)>,
}

impl Transaction {
    pub fn new(tree: &Tree) -> Self {
        Self { tree: tree.clone(), touched: BTreeMap::new(), changes: Vec::new() }
    }

    /// The tree as it shows there, for a look at `path`.
    pub fn look(&mut self, path: &str) -> &Tree {
        self.touch(path);
        &self.tree
    }

    fn touch(&mut self, path: &str) {
        let generation = self.tree.generation(path);
        self.touched.entry(path.to_string()).or_insert(generation);
    }

    pub fn write(&mut self, path: &str, value: &[u8]) {
        self.touch(path);
        self.tree.write(path, value);
        self.changes.push((path.to_string(), Some(value.to_vec())));
    }

    pub fn remove(&mut self, path: &str) {
        self.touch(path);
        self.tree.remove(path);
        self.changes.push((path.to_string(), None));
    }

    /// Carries it out, unless something that it touched has changed meanwhile (`None`).
    pub fn commit(self, tree: &mut Tree) -> Option<Vec<Change>> {
        if self.touched.iter().any(|(path, generation)| tree.generation(path) != *generation) {
            return None;
        }
        let changes = self.changes.into_iter().filter_map(|(path, value)| match value {
            Some(value) => {
                tree.write(&path, &value);
                Some(Change::Written(path))
            }
            None => Some(Change::Removed(tree.remove(&path))).filter(|change| *change != Change::Removed(Vec::new())),
        });
        Some(changes.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn nodes_have_parents_and_children() {
        let mut tree = Tree::default();
        tree.write("/a/b/c", b"1");
        tree.write("/a/b0", b"");
        tree.write("/a/b/d/e", b"2");
        assert_eq!(
            (tree.read("/a/b"), tree.read("/a/b/c"), tree.read("/a/x")),
            (Some(&b""[..]), Some(&b"1"[..]), None)
        );
        assert_eq!(tree.directory("/a").unwrap(), ["b", "b0"]);
        assert_eq!(tree.directory("/a/b").unwrap(), ["c", "d"]);
        assert_eq!((tree.directory("/a/b/c").unwrap().len(), tree.directory("/b")), (0, None));
        assert_eq!(tree.remove("/a/b"), ["/a/b", "/a/b/c", "/a/b/d", "/a/b/d/e"]);
        assert_eq!(tree.directory("/a").unwrap(), ["b0"]);
        assert_eq!(tree.remove("/a/b").len(), 0);
    }

    #[test]
    fn watches_hear_of_what_is_at_and_below_them_and_of_what_goes_with_something_above() {
        let watch =
            |path: &str, prefix: &str| Watch { path: path.to_string(), prefix: prefix.to_string(), token: vec![] };
        let written = |path: &str| Change::Written(path.to_string());
        let at = watch("/a/b", "");
        assert_eq!(at.events(&written("/a/b")), ["/a/b"]);
        assert_eq!(at.events(&written("/a/b/c")), ["/a/b/c"]);
        assert!(at.events(&written("/a")).is_empty() && at.events(&written("/a/bc")).is_empty());
        assert_eq!(watch("/a/b", "/a/").events(&written("/a/b/c")), ["b/c"]);
        let removed = Change::Removed(vec!["/a".to_string(), "/a/b".to_string(), "/a/b/c".to_string()]);
        assert_eq!(at.events(&removed), ["/a/b"]);
        assert_eq!(watch("/a", "").events(&removed), ["/a"]);
    }

    #[test]
    fn a_transaction_is_all_or_nothing() {
        let mut tree = Tree::default();
        tree.write("/a/x", b"1");
        let mut transaction = Transaction::new(&tree);
        assert_eq!(transaction.look("/a/x").read("/a/x"), Some(&b"1"[..]));
        transaction.write("/a/y", b"2");
        transaction.remove("/a/x");
        assert_eq!((transaction.look("/a/y").read("/a/y"), tree.read("/a/y")), (Some(&b"2"[..]), None));
        tree.write("/b", b"");
        let changes = transaction.commit(&mut tree).unwrap();
        assert_eq!(changes, [Change::Written("/a/y".to_string()), Change::Removed(vec!["/a/x".to_string()])]);

        for conflict in ["/a/y", "/a/z/new"] {
            let mut transaction = Transaction::new(&tree);
            transaction.look("/a/y");
            transaction.look("/a/z");
            transaction.write("/a/w", b"3");
            tree.write(conflict, b"9");
            assert_eq!(transaction.commit(&mut tree), None);
            assert_eq!(tree.read("/a/w"), None);
        }
    }
}
