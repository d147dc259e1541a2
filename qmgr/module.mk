$(eval $(call program,qmgr,qmgr,queue mail daemon conf ipc ev base,-lpthread))
