//! The table of client halves: places with a generation, found by place or by the client's address.

use std::net::SocketAddr;

use hashbrown::HashMap;
use mio::Token;
use slab::Slab;

use super::client::Client;

/// Names a client half for as long as it lives; one that took over its place has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Place in the table.
    pub index: u32,
    /// Counts the place's users, modulo 256.
    pub generation: u8,
}

impl Key {
    /// The key as epoll's token.
    pub fn token(self) -> Token {
        Token(self.index as usize | (self.generation as usize) << 32)
    }

    /// The key that [`Key::token`] was made of.
    pub fn from_token(token: Token) -> Self {
        Self { index: token.0 as u32, generation: (token.0 >> 32) as u8 }
    }
}

/// All client halves.
#[derive(Default)]
pub struct Table {
    slots: Slab<Client>,
    /// Of each place ever used.
    generations: Vec<u8>,
    /// By listening socket and client.
    by_client: HashMap<(u8, SocketAddr), Key>,
}

impl Table {
    /// Number of client halves.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Puts in what `make` makes of its key.
    pub fn insert<E>(&mut self, make: impl FnOnce(Key) -> Result<Client, E>) -> Result<Key, E> {
        let entry = self.slots.vacant_entry();
        let index = entry.key();
        if self.generations.len() == index {
            self.generations.push(0);
        }
        let key = Key { index: index as u32, generation: self.generations[index] };
        let client = make(key)?;
        self.by_client.insert((client.listener, client.address), key);
        entry.insert(client);
        Ok(key)
    }

    /// The client half that `key` names, if it still lives.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Client> {
        let generation = *self.generations.get(key.index as usize)?;
        self.slots.get_mut(key.index as usize).filter(|_| generation == key.generation)
    }

    /// The client half of the client at `address` that came in by `listener`.
    pub fn find(&self, listener: u8, address: SocketAddr) -> Option<Key> {
        self.by_client.get(&(listener, address)).copied()
    }

    /// Takes a client half out.
    pub fn remove(&mut self, key: Key) -> Option<Client> {
        self.get_mut(key)?;
        let client = self.slots.remove(key.index as usize);
        let generation = &mut self.generations[key.index as usize];
        *generation = generation.wrapping_add(1);
        if self.find(client.listener, client.address) == Some(key) {
            self.by_client.remove(&(client.listener, client.address));
        }
        Some(client)
    }

    /// The keys of all client halves.
    pub fn keys(&self) -> Vec<Key> {
        let key = |(index, _)| Key { index: index as u32, generation: self.generations[index] };
        self.slots.iter().map(key).collect()
    }
}
