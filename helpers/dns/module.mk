$(eval $(call program,dns,helpers/dns,daemon dns mail conf ipc ev base,-lcares))
