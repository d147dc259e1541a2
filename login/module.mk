$(eval $(call program,login,login,daemon tls imap pop3 mail conf ipc ev base,))
