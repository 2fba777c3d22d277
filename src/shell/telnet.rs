//! The telnet protocol of a session (RFC 854, 857, 858): commands are taken out of the byte stream and options are answered.
//!
//! We offer to echo and to suppress go-ahead, which is what makes a telnet client send each key as it is pressed. A client that
//! does not answer (netcat, a script) is in line mode: nothing is echoed to it.

use arrayvec::ArrayVec;

const SE: u8 = 240;
const INTERRUPT_PROCESS: u8 = 244;
const ARE_YOU_THERE: u8 = 246;
const ERASE_CHARACTER: u8 = 247;
const ERASE_LINE: u8 = 248;
const SB: u8 = 250;
const WILL: u8 = 251;
const WONT: u8 = 252;
const DO: u8 = 253;
const DONT: u8 = 254;
const IAC: u8 = 255;

const OPTION_ECHO: u8 = 1;
const OPTION_SUPPRESS_GO_AHEAD: u8 = 3;

/// What a new client is sent first.
pub const OFFER: [u8; 6] = [IAC, WILL, OPTION_ECHO, IAC, WILL, OPTION_SUPPRESS_GO_AHEAD];

/// An answer to one option command.
pub type Reply = ArrayVec<u8, 3>;

/// What one byte of the stream turned out to mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Part of a command, or nothing of interest.
    Nothing,
    /// A byte of data.
    Data(u8),
    /// Bytes to send back.
    Reply(Reply),
    /// The client asks for a sign of life.
    AreYouThere,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Data,
    Command,
    Option(u8),
    Subnegotiation,
    SubnegotiationCommand,
}

/// Decoder of one session.
#[derive(Debug, Default)]
pub struct Telnet {
    state: State,
    echo: bool,
    suppress_go_ahead: bool,
    /// The client suppresses go-ahead in its own direction.
    peer_suppresses: bool,
}

impl Telnet {
    /// True when the client wants us to echo: it sends each key as it is pressed.
    pub fn echoes(&self) -> bool {
        self.echo
    }

    /// Takes one byte.
    pub fn decode(&mut self, byte: u8) -> Event {
        match self.state {
            State::Data if byte == IAC => self.state = State::Command,
            State::Data => return Event::Data(byte),
            State::Command => {
                self.state = State::Data;
                match byte {
                    IAC => return Event::Data(IAC),
                    INTERRUPT_PROCESS => return Event::Data(0x03),
                    ERASE_CHARACTER => return Event::Data(0x7f),
                    ERASE_LINE => return Event::Data(0x15),
                    ARE_YOU_THERE => return Event::AreYouThere,
                    SB => self.state = State::Subnegotiation,
                    WILL..=DONT => self.state = State::Option(byte),
                    _ => {}
                }
            }
            State::Option(command) => {
                self.state = State::Data;
                return self.option(command, byte);
            }
            State::Subnegotiation if byte == IAC => self.state = State::SubnegotiationCommand,
            State::Subnegotiation => {}
            State::SubnegotiationCommand if byte == SE => self.state = State::Data,
            State::SubnegotiationCommand => self.state = State::Subnegotiation,
        }
        Event::Nothing
    }

    /// Answers only what changes something, so that two sides never answer each other for ever (RFC 1143).
    fn option(&mut self, command: u8, option: u8) -> Event {
        let agreed = command == DO || command == WILL;
        let state = match (command, option) {
            // Both have been offered: DO agrees, DONT declines, and neither wants an answer the first time.
            (DO | DONT, OPTION_ECHO) => &mut self.echo,
            (DO | DONT, OPTION_SUPPRESS_GO_AHEAD) => &mut self.suppress_go_ahead,
            (WILL | WONT, OPTION_SUPPRESS_GO_AHEAD) => &mut self.peer_suppresses,
            (DO, _) => return Event::Reply(Reply::from([IAC, WONT, option])),
            (WILL, _) => return Event::Reply(Reply::from([IAC, DONT, option])),
            _ => return Event::Nothing,
        };
        let changed = core::mem::replace(state, agreed) != agreed;
        match (command, changed) {
            (WILL, true) => Event::Reply(Reply::from([IAC, DO, option])),
            (WONT, true) => Event::Reply(Reply::from([IAC, DONT, option])),
            (DONT, true) => Event::Reply(Reply::from([IAC, WONT, option])),
            _ => Event::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn data(telnet: &mut Telnet, bytes: &[u8]) -> Vec<u8> {
        bytes
            .iter()
            .filter_map(|byte| match telnet.decode(*byte) {
                Event::Data(byte) => Some(byte),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn commands_are_taken_out() {
        let mut telnet = Telnet::default();
        let stream = [b'a', IAC, IAC, b'b', IAC, 241, b'c', IAC, SB, 24, 0, IAC, IAC, b'x', IAC, SE, b'd'];
        assert_eq!(data(&mut telnet, &stream), [b'a', IAC, b'b', b'c', b'd']);
        assert_eq!(data(&mut telnet, &[IAC, INTERRUPT_PROCESS]), [3]);
    }

    #[test]
    fn a_client_that_agrees_is_echoed_to() {
        let mut telnet = Telnet::default();
        assert!(!telnet.echoes());
        for byte in [IAC, DO, OPTION_ECHO, IAC, DO, OPTION_SUPPRESS_GO_AHEAD] {
            assert_eq!(telnet.decode(byte), Event::Nothing);
        }
        assert!(telnet.echoes());
        telnet.decode(IAC);
        telnet.decode(DONT);
        assert_eq!(telnet.decode(OPTION_ECHO), Event::Reply(Reply::from([IAC, WONT, OPTION_ECHO])));
        assert!(!telnet.echoes());
    }

    #[test]
    fn what_we_do_not_know_is_declined_once() {
        let mut telnet = Telnet::default();
        for (command, answer) in [(DO, Some(WONT)), (WILL, Some(DONT)), (DONT, None), (WONT, None)] {
            telnet.decode(IAC);
            telnet.decode(command);
            let expected = answer.map_or(Event::Nothing, |answer| Event::Reply(Reply::from([IAC, answer, 34])));
            assert_eq!(telnet.decode(34), expected);
        }
    }
}
