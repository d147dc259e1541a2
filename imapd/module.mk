$(eval $(call program,imapd,imapd,daemon imap access store db mail conf ipc ev base,))
